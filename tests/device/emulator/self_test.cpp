// The emulator's own test: every built-in function against a computation by other means, every mistake reported.
//
//   emulator_self_test           all of it, with the threads in several orders; prints one line at the end
//   emulator_self_test switches  measures a switch between threads
//   emulator_self_test KERNEL    commits a mistake that a sanitizer must see, and ends well if none does
//
// The expectations hold on a device too, save for the mistakes:
//   nvcc -x cu -std=c++17 -arch=native -Ikernels/cuda -Ikernels/shared tests/device/emulator/self_test.cpp -o self_test_on_device
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "self_test.cu"

#if defined(__CUDACC__)
#include "on_device.h"
#endif

DUMONT_EMULATE(self_indices);
DUMONT_EMULATE(self_arguments);
DUMONT_EMULATE(self_integers);
DUMONT_EMULATE(self_vectors);
DUMONT_EMULATE(self_atomics);
DUMONT_EMULATE(self_shuffles);
DUMONT_EMULATE(self_votes);
DUMONT_EMULATE(self_reductions);
DUMONT_EMULATE(self_masks);
DUMONT_EMULATE(self_shared);
DUMONT_EMULATE(self_uninitialised);
DUMONT_EMULATE(self_switches);
DUMONT_EMULATE(wrong_divergent_barrier);
DUMONT_EMULATE(wrong_barrier_after_return);
DUMONT_EMULATE(wrong_returned_lane);
DUMONT_EMULATE(wrong_mask_without_caller);
DUMONT_EMULATE(wrong_masks_differ);
DUMONT_EMULATE(wrong_shuffle_source);
DUMONT_EMULATE(wrong_collectives_differ);
DUMONT_EMULATE(wrong_partial_warp);
DUMONT_EMULATE(wrong_alignment);
DUMONT_EMULATE(wrong_dynamic_shared_size);
DUMONT_EMULATE(wrong_selector);
DUMONT_EMULATE(wrong_trap);
DUMONT_EMULATE(wrong_race);
DUMONT_EMULATE(wrong_static_shared_index);
DUMONT_EMULATE(wrong_global_index);
DUMONT_EMULATE(wrong_vector_address);

namespace {

#if defined(__CUDACC__)
template <class T>
using Memory = std::vector<T, dumont::emulator::Allocator<T>>;
#else
template <class T>
using Memory = std::vector<T>;
#endif
using Words = Memory<uint32_t>;

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

template <class... A>
void launch(const char* kernel, unsigned grid, unsigned threads, unsigned shared, A... arguments) {
    if (dumont::emulator::launch(kernel, grid, threads, shared, arguments...) == 0) return;
    std::fprintf(stderr, "%s\n", emulator_error());
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
    launch("self_indices", kBlocks, kThreads, 0, out.data());
    for (unsigned t = 0; t < kAll; ++t) {
        const uint32_t expected[] = {t % kThreads, t / kThreads, kThreads, kBlocks + 2};
        for (unsigned i = 0; i < 4; ++i) expect("indices", 4 * t + i, expected[i], out[4 * t + i]);
    }
}

void test_arguments() {
    const Words in = {5};
    Memory<uint64_t> out(kThreads);
    launch("self_arguments", 1, kThreads, 0, uint8_t{200}, uint64_t{1} << 40, int32_t{-300}, in.data(), out.data());
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
    launch("self_integers", kBlocks, kThreads, 0, in.data(), out.data());
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
    Memory<uint4> source(kAll * kVectorBytes / 16);
    Memory<uint4> target(source.size());
    std::memcpy(source.data(), in.data(), kAll * kVectorBytes);
    launch("self_vectors", kBlocks, kThreads, 0, reinterpret_cast<const uint8_t*>(source.data()),
           reinterpret_cast<uint8_t*>(target.data()));
    expect("vectors", 0, 0, std::memcmp(in.data(), target.data(), kAll * kVectorBytes) != 0);
}

void test_atomics() {
    Words words = {10, 0, 0xFFFFFFFF, 0, 50, 50, 1000, 5, 0xFFFFFFFF, 3, 0, 1};
    Memory<unsigned long long> longs = {1, 0, ~0ull, 0, 7, 0};
    Words tickets(kAll);
    launch("self_atomics", kBlocks, kThreads, 0, words.data(), longs.data(), tickets.data());
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
    launch("self_shuffles", kBlocks, kThreads, 0, in.data(), out.data());
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
    launch("self_votes", kBlocks, kThreads, 0, in.data(), out.data());
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
    launch("self_reductions", kBlocks, kThreads, 0, in.data(), out.data());
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
    launch("self_masks", kBlocks, kThreads, 0, in.data(), out.data());
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
    Words sums(kBlocks + 1);
    Words finished = {0};
    launch("self_shared", kBlocks, kThreads, kThreads * 4, in.data(), out.data(), sums.data(), finished.data());
    for (unsigned t = 0; t < kAll; ++t) {
        expect("reversed", t, in[t / kThreads * kThreads + kThreads - 1 - t % kThreads], out[t]);
    }
    for (unsigned b = 0; b < kBlocks; ++b) {
        const uint32_t* first = in.data() + b * kThreads;
        expect("block sums", b, std::accumulate(first, first + kThreads, 0u), sums[b]);
    }
    expect("sum", 0, std::accumulate(in.begin(), in.end(), 0u), sums[kBlocks]);
    expect("finished", 0, kBlocks, finished[0]);
}

void test_all_threads_of_a_large_block() {
    Words out(4 * 1024);
    launch("self_indices", 1, 1024, kSharedOfEveryDevice, out.data());
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
    test_all_threads_of_a_large_block();
}

#if !defined(__CUDACC__)

void test_shared_memory_starts_alike_in_every_block() {
    Words out(kBlocks, 1);
    launch("self_uninitialised", kBlocks, 1, 4, out.data());
    for (unsigned b = 0; b < kBlocks; ++b) expect("uninitialised", b, 0, out[b]);
}

// Every message names the kernel; `reason` is part of it.
template <class... A>
void expect_error(const char* reason, const char* kernel, unsigned threads, unsigned shared, A... arguments) {
    const int status = dumont::emulator::launch(kernel, 2, threads, shared, arguments...);
    const std::string error = emulator_error();
    const bool named = error.find(kernel) == 0 || error.find("a block") == 0 || error.find("no device") == 0;
    if (status != 0 && named && error.find(reason) != std::string::npos) return;
    ++failures;
    std::fprintf(stderr, "%s: expected \"%s\", got %d \"%s\"\n", kernel, reason, status, error.c_str());
}

void test_mistakes_are_reported() {
    Memory<uint4> memory(64);
    auto* words = reinterpret_cast<uint32_t*>(memory.data());
    auto* bytes = reinterpret_cast<uint8_t*>(memory.data());
    expect_error("threads 0 to 15 at __syncthreads; threads 16 to 31 at __ballot_sync with mask ffffffff",
                 "wrong_divergent_barrier", 32, 0);
    expect_error("thread 40 returned", "wrong_barrier_after_return", 64, 0);
    expect_error("thread 3 returned", "wrong_returned_lane", 64, 0);
    expect_error("__ballot_sync with mask 0000ffff, which lacks the calling lane", "wrong_mask_without_caller", 32, 0);
    expect_error("thread 0 at __ballot_sync with mask ffffffff; threads 1 to 31 at __syncwarp", "wrong_masks_differ", 32,
                 0);
    expect_error("reads lane 20 outside of it", "wrong_shuffle_source", 32, 0, words);
    expect_error("threads 0 to 15 at __syncwarp", "wrong_collectives_differ", 32, 0);
    expect_error("lanes that the block does not have", "wrong_partial_warp", 48, 0, words);
    expect_error("16 bytes at a misaligned address", "wrong_alignment", 32, 0, static_cast<const uint8_t*>(bytes),
                 memory.data());
    expect_error("selector 0008", "wrong_selector", 32, 0, words);
    expect_error("__trap", "wrong_trap", 32, 0);
    expect_error("no such kernel", "missing", 32, 0);
    expect_error("1 to 1024 threads", "self_indices", 1025, 0, words);
    expect_error("shared memory", "self_indices", 32, 228 * 1024, words);
#if !defined(__SANITIZE_ADDRESS__)
    expect_error("past its dynamic shared memory", "wrong_dynamic_shared_size", 32, 31);
#endif
    expect("error after success", 0, 0, (launch("self_switches", 1, 32, 0, 1u), std::strlen(emulator_error())));
}

// The first order hides the missing barrier, the second shows it.
void test_orders_show_a_missing_barrier() {
    Words first(32);
    Words last(32);
    emulator_set_order(0);
    launch("wrong_race", 1, 32, 0, first.data());
    emulator_set_order(1);
    launch("wrong_race", 1, 32, 0, last.data());
    emulator_set_order(0);
    expect("first thread first", 31, 42, first[31]);
    expect("last thread first", 31, 0xA5A5A5A5, last[31]);
    Words other(32);
    emulator_set_order(1);
    emulator_set_fill(0x11);
    launch("wrong_race", 1, 32, 0, other.data());
    emulator_set_fill(0xA5);
    emulator_set_order(0);
    expect("last thread first, other fill", 31, 0x11111111, other[31]);
}

void measure_switches() {
    for (unsigned threads : {32u, 128u, 1024u}) {
        const uint64_t before = emulator_switches();
        const auto start = std::chrono::steady_clock::now();
        launch("self_switches", 4, threads, 0, 10'000'000 / threads);
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        const double switches = static_cast<double>(emulator_switches() - before);
        std::printf("%4u threads: %.1f ns a switch\n", threads, seconds.count() / switches * 1e9);
    }
}

int commit_mistake(const std::string& kernel) {
    Memory<uint4> in(8);
    Memory<uint4> out(32);
    auto* words = reinterpret_cast<uint32_t*>(in.data());
    auto* results = reinterpret_cast<uint32_t*>(out.data());
    if (kernel == "wrong_dynamic_shared_size") return dumont::emulator::launch(kernel.c_str(), 1, 32, 31);
    if (kernel == "wrong_static_shared_index") return dumont::emulator::launch(kernel.c_str(), 1, 32, 0, results, 17u);
    if (kernel == "wrong_global_index") return dumont::emulator::launch(kernel.c_str(), 1, 32, 0, words, results, 32u);
    if (kernel == "wrong_vector_address") {
        return dumont::emulator::launch(kernel.c_str(), 1, 1, 0, reinterpret_cast<const uint8_t*>(words), out.data());
    }
    std::fprintf(stderr, "no such mistake: %s\n", kernel.c_str());
    return 2;
}

#endif

}  // namespace

int main([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
#if defined(__CUDACC__)
    test_built_in_functions();
#else
    if (argc > 1 && std::strcmp(argv[1], "switches") == 0) {
        measure_switches();
        return 0;
    }
    if (argc > 1) return commit_mistake(argv[1]);
    for (unsigned order = 0; order < 8; ++order) {
        emulator_set_order(order);
        test_built_in_functions();
        test_shared_memory_starts_alike_in_every_block();
    }
    emulator_set_order(0);
    test_mistakes_are_reported();
    test_orders_show_a_missing_barrier();
#endif
    if (failures != 0) {
        std::fprintf(stderr, "%d failures\n", failures);
        return 1;
    }
    std::printf("every built-in function: ok\n");
    return 0;
}
