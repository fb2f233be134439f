// The machine's own test: what it computes against a computation by other means, and every mistake found.
//
//   machine_self_test SELF_TEST_PTX  all of it, in several orders; prints one line at the end
//
// The expectations hold on a device too, save for the mistakes:
//   nvcc -x cu -std=c++17 -arch=native -Ikernels/cuda -Ikernels/shared tests/device/ptx_machine/self_test.cpp -o
//   self_test_on_device
#include "self_test.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#if defined(__CUDACC__)
#include "on_device.h"
#include "self_test.cu"
#define KERNEL_OF(name) reinterpret_cast<const void*>(&name)
#else
#include "machine_abi.h"
#define KERNEL_OF(name) #name
#endif

namespace {

#if defined(__CUDACC__)
template <class T>
using Memory = std::vector<T, dumont::machine::Allocator<T>>;
#else
template <class T>
using Memory = std::vector<T>;
#endif
using Words = Memory<uint32_t>;

struct alignas(16) Quad {
    uint32_t word[4];
};

constexpr unsigned kBlocks = 3;
constexpr unsigned kThreads = 64;
constexpr unsigned kSharedOfEveryDevice = 64 * 1024;
constexpr unsigned kAll = kBlocks * kThreads;

int failures = 0;

void expect(const char* what, size_t index, uint64_t expected, uint64_t actual) {
    if (expected == actual) return;
    if (++failures <= 20) {
        std::fprintf(stderr, "%s[%zu]: expected %llx, got %llx\n", what, index,
                     static_cast<unsigned long long>(expected), static_cast<unsigned long long>(actual));
    }
}

template <class Kernel, class... A>
void launch(Kernel kernel, unsigned grid, unsigned threads, unsigned shared, A... arguments) {
    if (dumont::machine::launch(kernel, grid, threads, shared, arguments...) == 0) return;
    std::fprintf(stderr, "%s\n", machine_error());
    ++failures;
}

Words random_words(size_t count, uint32_t seed) {
    std::mt19937 random(seed);
    Words words(count);
    for (uint32_t& word : words) word = random() >> random() % 32;
    return words;
}

void test_indices() {
    Words out(4 * kAll);
    launch(KERNEL_OF(self_indices), kBlocks, kThreads, 0, out.data());
    for (unsigned t = 0; t < kAll; ++t) {
        const uint32_t expected[] = {t % kThreads, t / kThreads, kThreads, kBlocks + 2};
        for (unsigned i = 0; i < 4; ++i) expect("indices", 4 * t + i, expected[i], out[4 * t + i]);
    }
}

void test_arguments() {
    const Words in = {5};
    Memory<uint64_t> out(kThreads);
    launch(KERNEL_OF(self_arguments), 1, kThreads, 0, uint8_t{200}, uint64_t{1} << 40, int32_t{-300}, in.data(),
           out.data());
    for (uint64_t value : out) expect("arguments", 0, (uint64_t{1} << 40) - 95, value);
}

unsigned bit(uint64_t value, unsigned index) {
    return value >> index & 1;
}

uint64_t reversed(uint64_t value, unsigned bits) {
    uint64_t result = 0;
    for (unsigned i = 0; i < bits; ++i) result = 2 * result + bit(value, i);
    return result;
}

unsigned zeros_above(uint64_t value, unsigned bits) {
    unsigned count = 0;
    while (count < bits && !bit(value, bits - 1 - count)) ++count;
    return count;
}

unsigned first_set(uint64_t value, unsigned bits) {
    for (unsigned i = 0; i < bits; ++i) {
        if (bit(value, i)) return i + 1;
    }
    return 0;
}

unsigned ones(uint64_t value) {
    unsigned count = 0;
    for (unsigned i = 0; i < 64; ++i) count += bit(value, i);
    return count;
}

// Bit i of b:a shifted, bit by bit.
uint32_t funnel(uint64_t wide, int first) {
    uint32_t result = 0;
    for (int i = 0; i < 32; ++i) result |= static_cast<uint32_t>(bit(wide, static_cast<unsigned>(first + i))) << i;
    return result;
}

void test_integers() {
    Words in = random_words(3 * kAll, 1);
    const uint32_t edges[] = {0, 1, 31, 32, 33, 63, 64, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};
    for (unsigned i = 0; i < 3 * 50; ++i) in[i] = edges[(i * 7 + i / 10) % 10];
    Words out(kIntegerResults * kAll);
    launch(KERNEL_OF(self_integers), kBlocks, kThreads, 0, in.data(), out.data());
    for (unsigned t = 0; t < kAll; ++t) {
        const uint32_t a = in[3 * t];
        const uint32_t b = in[3 * t + 1];
        const uint32_t c = in[3 * t + 2];
        const uint64_t wide = static_cast<uint64_t>(b) << 32 | a;
        uint8_t bytes[8];
        std::memcpy(bytes, &wide, 8);
        uint32_t permuted = 0;
        for (int i = 3; i >= 0; --i) permuted = permuted << 8 | bytes[c >> (4 * i) & 7];
        const int clamped = static_cast<int>(std::min(c, 32u));
        const int masked = static_cast<int>(c & 31);
        const int sa = static_cast<int>(a);
        const int sb = static_cast<int>(b);
        const uint32_t expected[kIntegerResults] = {
            ones(a),
            ones(wide),
            zeros_above(a, 32),
            zeros_above(wide, 64),
            first_set(a, 32),
            first_set(wide, 64),
            static_cast<uint32_t>(reversed(a, 32)),
            static_cast<uint32_t>(reversed(wide, 64)),
            funnel(wide, 32 - masked),
            funnel(wide, 32 - clamped),
            funnel(wide, masked),
            funnel(wide, clamped),
            permuted,
            static_cast<uint32_t>((static_cast<uint64_t>(a) * b) >> 32),
            std::min(a, b),
            std::max(a, b),
            static_cast<uint32_t>(std::min(sa, sb)),
            static_cast<uint32_t>(std::max(sa, sb)),
            std::min(a, b),
            static_cast<uint32_t>(std::max(wide, static_cast<uint64_t>(c)) >> 32),
            31 - zeros_above(a | 1, 32),
            a,
            static_cast<uint32_t>(reversed(wide, 64) >> 32),
            ones(a) == 1,
        };
        for (unsigned i = 0; i < kIntegerResults; ++i) {
            expect("integers", i, expected[i], out[kIntegerResults * t + i]);
        }
    }
}

void test_vectors() {
    const Words in = random_words(kAll * kVectorBytes / 4, 2);
    Memory<Quad> source(kAll * kVectorBytes / 16);
    Memory<Quad> target(source.size());
    std::memcpy(source.data(), in.data(), kAll * kVectorBytes);
    launch(KERNEL_OF(self_vectors), kBlocks, kThreads, 0, reinterpret_cast<const uint8_t*>(source.data()),
           reinterpret_cast<uint8_t*>(target.data()));
    expect("vectors", 0, 0, std::memcmp(in.data(), target.data(), kAll * kVectorBytes) != 0);
}

void test_atomics() {
    Words words = {10, 0, 0xFFFFFFFF, 0, 50, 50, 1000, 5, 0xFFFFFFFF, 3, 0, 1};
    Memory<unsigned long long> longs = {1, 0, ~0ull, 0, 7, 0};
    Words tickets(kAll);
    launch(KERNEL_OF(self_atomics), kBlocks, kThreads, 0, words.data(), longs.data(), tickets.data());
    std::sort(tickets.begin(), tickets.end());
    for (unsigned t = 0; t < kAll; ++t) expect("tickets", t, 10 + t, tickets[t]);
    uint32_t all_numbers = 0;
    for (unsigned t = 0; t < kAll; ++t) all_numbers ^= t;
    const Words expected = {10 + kAll, 0xFFFFFFFF, 0xFFFF0000, all_numbers, 3, 7 * (kAll - 1) + 3, 1000 - 2 * kAll,
                            0u - (kAll - 1), 0xFFFFFFFF, 3 - kAll, 0xFFFFFFFF, 99};
    for (unsigned i = 0; i < expected.size(); ++i) expect("atomics", i, expected[i], words[i]);
    const Memory<unsigned long long> expected_longs = {1 + (static_cast<unsigned long long>(kAll) << 33),
                                                            static_cast<unsigned long long>(kAll - 1) << 34,
                                                            1ull << 34,
                                                            ~0ull,
                                                            1ull << 40,
                                                            1ull << 41};
    for (unsigned i = 0; i < expected_longs.size(); ++i) expect("wide atomics", i, expected_longs[i], longs[i]);
}

void test_shuffles() {
    const Words in = random_words(kAll, 3);
    Words out(kShuffleResults * kAll);
    launch(KERNEL_OF(self_shuffles), kBlocks, kThreads, 0, in.data(), out.data());
    for (unsigned t = 0; t < kAll; ++t) {
        const uint32_t* warp = in.data() + t / 32 * 32;
        const unsigned lane = t % 32;
        const unsigned peer = t ^ 1;
        const uint32_t expected[kShuffleResults] = {
            warp[31 - lane],
            warp[lane / 8 * 8 + 3],
            warp[lane / 16 * 16 + (lane + 5) % 16],
            lane < 3 ? warp[lane] : warp[lane - 3],
            lane % 8 < 3 ? warp[lane] : warp[lane - 3],
            lane > 28 ? warp[lane] : warp[lane + 3],
            lane % 8 > 4 ? warp[lane] : warp[lane + 3],
            warp[lane ^ 5],
            lane & 8 ? warp[lane - 8] : warp[lane],  // a later segment is out of reach, an earlier one is not
            in[peer] ^ peer,
            static_cast<uint32_t>(-4),
            std::accumulate(warp, warp + lane + 1, 0u),
        };
        for (unsigned i = 0; i < kShuffleResults; ++i) expect("shuffles", i, expected[i], out[kShuffleResults * t + i]);
    }
}

void test_votes() {
    Words in(kAll);
    for (unsigned t = 0; t < kAll; ++t) in[t] = t;
    Words out(kVoteResults * kAll);
    launch(KERNEL_OF(self_votes), kBlocks, kThreads, 0, in.data(), out.data());
    for (unsigned t = 0; t < kAll; ++t) {
        uint32_t ballot = 0;
        uint32_t equal = 0;
        bool any = false;
        for (unsigned lane = 0; lane < 32; ++lane) {
            const unsigned peer = t / 32 * 32 + lane;
            ballot |= (peer >> 2 & 1) << lane;
            equal |= static_cast<uint32_t>(peer % 4 == t % 4) << lane;
            any |= peer % 61 == 0;
        }
        const bool has77 = t / kThreads == 77 / kThreads;
        const uint32_t expected[kVoteResults] = {ballot, any, !any, equal, kThreads / 2, !has77, has77};
        for (unsigned i = 0; i < kVoteResults; ++i) expect("votes", i, expected[i], out[kVoteResults * t + i]);
    }
}

void test_reductions() {
    const Words in = random_words(kAll, 4);
    Words out(kReduceResults * kAll);
    launch(KERNEL_OF(self_reductions), kBlocks, kThreads, 0, in.data(), out.data());
    for (unsigned t = 0; t < kAll; ++t) {
        uint32_t expected[kReduceResults] = {0, ~0u, 0, ~0u, 0, 0, 0x7FFFFFFF, 0x80000000};
        for (unsigned lane = 0; lane < 32; ++lane) {
            const uint32_t value = in[t / 32 * 32 + lane];
            expected[0] += value;
            expected[1] = std::min(expected[1], value);
            expected[2] = std::max(expected[2], value);
            expected[3] &= value;
            expected[4] |= value;
            expected[5] ^= value;
            expected[6] = static_cast<uint32_t>(std::min(static_cast<int>(expected[6]), static_cast<int>(value)));
            expected[7] = static_cast<uint32_t>(std::max(static_cast<int>(expected[7]), static_cast<int>(value)));
        }
        for (unsigned i = 0; i < kReduceResults; ++i) {
            expect("reductions", i, expected[i], out[kReduceResults * t + i]);
        }
    }
}

void test_masks() {
    const Words in = random_words(kAll, 5);
    Words out(kMaskResults * kAll);
    launch(KERNEL_OF(self_masks), kBlocks, kThreads, 0, in.data(), out.data());
    for (unsigned t = 0; t < kAll; ++t) {
        const uint32_t* warp = in.data() + t / 32 * 32;
        const unsigned lane = t % 32;
        uint32_t odd = 0;
        uint32_t equal = 0;
        for (unsigned i = 0; i < 16; ++i) odd |= (warp[i] & 1) << i;
        for (unsigned i = 16; i < 31; ++i) equal |= static_cast<uint32_t>((warp[i] & 1) == (warp[lane] & 1)) << i;
        uint32_t first = std::accumulate(warp, warp + 16, 0u);
        uint32_t second = odd;
        if (lane >= 16) first = warp[16], second = equal;
        if (lane == 31) first = 0x80000000, second = 7;
        const uint32_t expected[kMaskResults] = {first, second, 0x0000FFFF, 16};
        for (unsigned i = 0; i < kMaskResults; ++i) expect("masks", i, expected[i], out[kMaskResults * t + i]);
    }
}

void test_shared() {
    const Words in = random_words(kAll, 6);
    Words out(kAll);
    Words sums(kBlocks);
    launch(KERNEL_OF(self_shared), kBlocks, kThreads, kThreads * 4, in.data(), out.data(), sums.data());
    for (unsigned t = 0; t < kAll; ++t) {
        expect("reversed", t, in[t / kThreads * kThreads + kThreads - 1 - t % kThreads], out[t]);
    }
    for (unsigned b = 0; b < kBlocks; ++b) {
        const uint32_t* first = in.data() + b * kThreads;
        expect("block sums", b, std::accumulate(first, first + kThreads, 0u), sums[b]);
    }
}

void test_partial_barriers() {
    Words out(32);
    launch(KERNEL_OF(self_partial_barriers), 1, 32, 0, out.data());
    for (unsigned lane = 0; lane < 32; ++lane) {
        const unsigned quad = lane & ~3u;
        const uint32_t expected[] = {lane, 2 * lane - 1, lane, 2 * quad + 1 + quad};
        expect("partial barriers", lane, expected[lane % 4], out[lane]);
    }
}

uint32_t permuted(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    uint32_t result = 0;
    for (int i = 3; i >= 0; --i) {
        const auto byte = static_cast<int8_t>(bytes >> (8 * (selector >> (4 * i) & 7)));
        const bool sign = selector >> (4 * i) & 8;
        result = result << 8 | static_cast<uint8_t>(sign ? byte >> 7 : byte);
    }
    return result;
}

uint64_t inserted(uint64_t a, uint64_t b, unsigned position, unsigned length, unsigned width) {
    for (unsigned i = 0; i < length && position + i < width; ++i) {
        b = (b & ~(1ull << (position + i))) | static_cast<uint64_t>(bit(a, i)) << (position + i);
    }
    return b;
}

uint32_t extracted(uint32_t a, unsigned position, unsigned length, bool is_signed) {
    uint32_t result = 0;
    const unsigned top = std::min(position + length - 1, 31u);
    const bool fill = is_signed && length > 0 && bit(a, top);
    for (unsigned i = 0; i < 32; ++i) {
        const bool inside = i < length && position + i < 32;
        result |= static_cast<uint32_t>(inside ? bit(a, position + i) : fill) << i;
    }
    return result;
}

void test_instructions() {
    const Words in = random_words(3 * 32, 8);
    Words out(kInstructionResults * 32);
    launch(KERNEL_OF(self_instructions), 1, 32, 0, in.data(), out.data());
    for (unsigned t = 0; t < 32; ++t) {
        const uint32_t a = in[3 * t];
        const uint32_t b = in[3 * t + 1];
        const uint32_t c = in[3 * t + 2];
        const uint64_t wide = static_cast<uint64_t>(b) << 32 | a;
        const uint64_t moved = inserted(wide, ~wide, c & 63, c >> 8 & 63, 64);
        const unsigned shift = c & 63;
        const auto low = static_cast<int8_t>(a);
        const bool less = static_cast<int16_t>(a) < static_cast<int16_t>(b);
        const uint32_t expected[kInstructionResults] = {
            permuted(a, b, c),
            extracted(a, b & 31, c & 31, false),
            extracted(a, b & 31, c & 31, true),
            static_cast<uint32_t>(inserted(a, b, c & 31, c >> 8 & 31, 32)),
            a ^ b ^ c,
            a * b + c,
            static_cast<uint32_t>(static_cast<int64_t>(static_cast<int32_t>(a)) >> shift),
            static_cast<uint32_t>(shift > 31 ? 0 : a << shift),
            static_cast<uint32_t>(moved >> 32),
            static_cast<uint32_t>(moved),
            static_cast<uint32_t>(static_cast<int32_t>(low)),
            less ? 7u : 9u,
            a & 1 ? c : 5,
            c + 3,
            a << 16 | a >> 16,
            a,
            b,
        };
        for (unsigned i = 0; i < kInstructionResults; ++i)
            expect("instructions", i, expected[i], out[kInstructionResults * t + i]);
    }
}

void test_all_threads_of_a_large_block() {
    Words out(4 * 1024);
    launch(KERNEL_OF(self_indices), 1, 1024, kSharedOfEveryDevice, out.data());
    for (unsigned t = 0; t < 1024; ++t) expect("large block", t, t, out[4 * t]);
}

void test_built_in_functions() {
    test_indices();
    test_arguments();
    test_integers();
    test_vectors();
    test_atomics();
    test_shuffles();
    test_votes();
    test_reductions();
    test_masks();
    test_shared();
    test_partial_barriers();
    test_instructions();
    test_all_threads_of_a_large_block();
}

#if !defined(__CUDACC__)

// Every message names the kernel; `reason` is part of it.
template <class... A>
void expect_error_of_blocks(unsigned blocks, const char* reason, const char* kernel, unsigned threads, unsigned shared,
                            A... arguments) {
    const int status = dumont::machine::launch(kernel, blocks, threads, shared, arguments...);
    const std::string error = machine_error();
    const bool named = error.find(kernel) == 0 || error.find("a block") == 0 || error.find("no device") == 0;
    if (status != 0 && named && error.find(reason) != std::string::npos) return;
    ++failures;
    std::fprintf(stderr, "%s: expected \"%s\", got %d \"%s\"\n", kernel, reason, status, error.c_str());
}

template <class... A>
void expect_error(const char* reason, const char* kernel, unsigned threads, unsigned shared, A... arguments) {
    expect_error_of_blocks(1, reason, kernel, threads, shared, arguments...);
}

void test_mistakes_are_reported() {
    Memory<Quad> memory(64);
    auto* words = reinterpret_cast<uint32_t*>(memory.data());
    auto* bytes = reinterpret_cast<uint8_t*>(memory.data());
    expect_error("threads 0 to 15 at __syncthreads; threads 16 to 31 at __ballot_sync with mask ffffffff",
                 "wrong_divergent_barrier", 32, 0);
    expect_error("thread 40 returned", "wrong_barrier_after_return", 64, 0);
    expect_error("thread 3 returned", "wrong_returned_lane", 64, 0);
    expect_error("__ballot_sync with mask 0000ffff, which lacks the calling lane", "wrong_mask_without_caller", 32, 0);
    expect_error("thread 0 at __ballot_sync with mask ffffffff; threads 1 to 31 at __syncwarp", "wrong_masks_differ",
                 32, 0);
    expect_error("reads lane 20 outside of it", "wrong_shuffle_source", 32, 0, words);
    expect_error("threads 0 to 15 at __syncwarp", "wrong_collectives_differ", 32, 0);
    expect_error("lanes that the block does not have", "wrong_partial_warp", 48, 0, words);
    expect_error("16 bytes at a misaligned address", "wrong_alignment", 32, 0, static_cast<const uint8_t*>(bytes),
                 memory.data());
    expect_error("__trap", "wrong_trap", 32, 0);
    expect_error("no such kernel", "missing", 32, 0);
    expect_error("1 to 1024 threads", "self_indices", 1025, 0, words);
    expect_error("shared memory", "self_indices", 32, 228 * 1024, words);
    launch("self_indices", 1, 32, 0, words);
    expect("error after success", 0, 0, std::strlen(machine_error()));
}

void test_accesses_are_checked() {
    Memory<Quad> memory(64);
    auto* words = reinterpret_cast<uint32_t*>(memory.data());
    const auto* bytes = reinterpret_cast<const uint8_t*>(memory.data());
    expect_error("writes 1 bytes at 0x1f of shared memory, past its 31 bytes; self_test.cu:",
                 "wrong_dynamic_shared_size", 32, 31);
    expect_error("reads 4 bytes at 0x80 of shared memory, past its 128 bytes", "wrong_static_shared_index", 32, 0,
                 words, 17u);
    expect_error("16 bytes at a misaligned address", "wrong_vector_address", 32, 0, bytes, memory.data());
    expect_error("of local memory, past its 16 bytes", "wrong_local_index", 32, 0, words, 4u);
    expect_error("of shared memory, past its 128 bytes", "wrong_generic_address", 32, 0, words);
    expect_error("writes to global memory what depends on memory that nothing has written, read at (self_test.cu:",
                 "wrong_unwritten_shared", 32, 0, words);
    expect_error_of_blocks(2,
                           "block 1, thread 0: writes to global memory what depends on memory that nothing has written",
                           "wrong_unwritten_in_second_block", 1, 0, words);
    expect_error("as read-only, but thread 0 writes it", "wrong_read_only", 32, 0, words, words + 32);

    machine_add_memory(words, 128);
    expect_error("thread 31: reads 4 bytes at", "wrong_global_index", 32, 0, words, words + 128, 32u);
    expect_error("outside the memory of the launch", "wrong_global_index", 32, 0, words, words + 128, 32u);
    launch("wrong_global_index", 1, 32, 0, words, words + 128, 31u);
    machine_set_strict(1);
    expect_error("writes 4 bytes", "wrong_global_index", 32, 0, words, words + 128, 31u);
    machine_set_strict(0);
    machine_mark_unwritten(words + 31, 4);
    expect_error("thread 31: writes to global memory what depends on memory that nothing has written",
                 "wrong_unwritten_global", 32, 0, words, words + 128);
    machine_remove_memory(words);
}

void test_races_are_found() {
    Words out(64);
    for (unsigned order : {0u, 1u, 2u, 3u}) {
        machine_set_order(order);
        expect_error("of shared memory, which thread", "wrong_race", 32, 0, out.data());
        expect_error("of shared memory, which thread", "wrong_race_at_shuffle", 32, 0, out.data());
        expect_error("of shared memory, which thread", "wrong_race_of_warps", 64, 0, out.data());
        expect_error("of global memory, which thread", "wrong_race_of_lanes", 32, 0, out.data());
        expect_error("of shared memory, which thread", "wrong_race_after_read", 32, 0, out.data());
        expect_error("of shared memory, which thread", "wrong_race_with_atomic", 32, 0, out.data());
        expect_error("of shared memory, which thread", "wrong_race_of_partial_barriers", 32, 0, out.data());
        expect_error_of_blocks(2, "global memory, which another block writes with no barrier between",
                               "wrong_race_of_blocks", 32, 0, out.data());
    }
    machine_set_order(0);
    expect_error(
        "thread 1: a race: reads 4 bytes at 0x0 of shared memory, which thread 0 writes with no barrier between "
        "(self_test.cu:",
        "wrong_race", 32, 0, out.data());
    Words zeros(2);
    machine_set_most_steps(100'000);
    expect_error("the block does not end", "wrong_endless", 32, 0, zeros.data());
}

int load(const char* path) {
    if (machine_load_file(path) == 0) return 0;
    std::fprintf(stderr, "%s\n", machine_error());
    return 1;
}

void test_texts_that_it_does_not_know() {
    const std::string head =
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry other()\n{\n.reg .f32 %f<3>;\n";
    const auto refused = [&](const char* reason, const std::string& text) {
        if (machine_load((head + text).c_str()) != 0 && std::strstr(machine_error(), reason)) return;
        ++failures;
        std::fprintf(stderr, "expected \"%s\", got \"%s\"\n", reason, machine_error());
    };
    refused("does not know: add.f32 %f0, %f1, %f2", "add.f32 %f0, %f1, %f2;\nret;\n}\n");
    refused("PTX line 7: cannot read .branchtargets", ".branchtargets a, b;\nret;\n}\n");
    refused("another barrier than number 0: bar.sync 1", "bar.sync 1;\nret;\n}\n");
    refused("expected", "ret\n");
}

#endif

}  // namespace

int main([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
#if defined(__CUDACC__)
    test_built_in_functions();
#else
    if (argc != 2 || load(argv[1]) != 0) return 2;
    for (unsigned order = 0; order < 8; ++order) {
        machine_set_order(order);
        test_built_in_functions();
    }
    machine_set_order(0);
    test_mistakes_are_reported();
    test_accesses_are_checked();
    test_races_are_found();
    test_texts_that_it_does_not_know();
#endif
    if (failures != 0) {
        std::fprintf(stderr, "%d failures\n", failures);
        return 1;
    }
    std::printf("every instruction and every mistake: ok\n");
    return 0;
}
