#include "emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#include "cuda_on_cpu.h"
#include "fiber.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace dumont::emulator {
namespace {

constexpr unsigned kLanes = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kMaxSharedBytes = 227 * 1024;  // the most that any device gives to a block, Hopper
constexpr size_t kCanary = 64;                    // behind dynamic shared memory, for builds without a sanitizer

struct Lane {
    Fiber fiber;
    Collective at = Collective::kNone;
    uint32_t mask;
    uint32_t source;
    uint64_t value;
    uint64_t result;
};

struct Warp {
    Lane lanes[kLanes];
    uint32_t exists;
    uint32_t ready;    // can go on
    uint32_t waiting;  // at a collective of the warp
    uint32_t returned;
};

struct Block {
    Warp warps[kMaxThreads / kLanes];
    unsigned threads;
    uint32_t ready_warps;  // have ready lanes
    unsigned running;      // number of the running thread
    unsigned live;
    unsigned at_barrier;
    unsigned predicates;  // true ones among them
    unsigned last_predicates;
};

Kernel* kernels;
Block block;
Fiber host;
Stacks stacks;
const Kernel* kernel;
void** arguments;
uint8_t* shared;
std::string error;
unsigned order;
uint64_t random_state;
uint8_t fill = 0xA5;
bool aborts;
uint64_t switches;

Warp& running_warp() {
    return block.warps[block.running / kLanes];
}

Lane& thread(unsigned number) {
    return block.warps[number / kLanes].lanes[number % kLanes];
}

unsigned pick(uint32_t set) {
    if (order == 0) return __builtin_ctz(set);
    if (order == 1) return 31 - __builtin_clz(set);
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    const unsigned turn = random_state >> 59;
    const uint32_t turned = set >> turn | set << (-turn & 31);
    return (__builtin_ctz(turned) + turn) & 31;
}

// ---------------------------------------------------------------------------------------------------------------
// Scheduling: a thread that must wait goes straight to the next that need not.

void set_error(std::string message) {
    error = std::move(message);
    if (!aborts) return;
    std::fprintf(stderr, "%s\n", error.c_str());
    std::abort();
}

// No std::string: it lives in a fiber that `fail` abandons.
struct Description {
    char text[64];
};

Description describe(const Lane& lane) {
    static const char* const kNames[] = {"nowhere",
                                         "__syncthreads",
                                         "__syncwarp",
                                         "a shuffle",
                                         "__ballot_sync",
                                         "__match_any_sync",
                                         "__reduce_add_sync",
                                         "__reduce_min_sync",
                                         "__reduce_max_sync",
                                         "__reduce_and_sync",
                                         "__reduce_or_sync",
                                         "__reduce_xor_sync"};
    const char* name = kNames[static_cast<unsigned>(lane.at)];
    Description description;
    if (lane.at == Collective::kSyncThreads) {
        std::snprintf(description.text, sizeof description.text, "at %s", name);
    } else {
        std::snprintf(description.text, sizeof description.text, "at %s with mask %08x", name, lane.mask);
    }
    return description;
}

// No thread can go on: says where each of them is.
void report_stall() {
    std::string text = std::string(kernel->name) + ": block " + std::to_string(blockIdx.x) + ": deadlock:";
    for (unsigned first = 0; first < block.threads;) {
        const auto state = [](unsigned i) -> std::string {
            const bool returned = block.warps[i / kLanes].returned >> i % kLanes & 1;
            return returned ? "returned" : describe(thread(i)).text;
        };
        const std::string here = state(first);
        unsigned end = first + 1;
        while (end < block.threads && state(end) == here) ++end;
        text += first == 0 ? " " : "; ";
        text += end == first + 1 ? "thread " + std::to_string(first)
                                 : "threads " + std::to_string(first) + " to " + std::to_string(end - 1);
        text += " " + here;
        first = end;
    }
    set_error(text);
}

// The fiber to go on with; the host if there is none.
Fiber& next_fiber() {
    unsigned warp = block.running / kLanes;
    if (block.warps[warp].ready == 0) {
        if (block.ready_warps == 0) {
            if (block.live != 0) report_stall();
            return host;
        }
        warp = pick(block.ready_warps);
    }
    const unsigned lane = pick(block.warps[warp].ready);
    block.running = warp * kLanes + lane;
    threadIdx.x = block.running;
    ++switches;
    return block.warps[warp].lanes[lane].fiber;
}

void set_ready(unsigned warp, uint32_t ready) {
    block.warps[warp].ready = ready;
    const uint32_t bit = 1u << warp;
    block.ready_warps = ready ? block.ready_warps | bit : block.ready_warps & ~bit;
}

void stop_running() {
    const unsigned warp = block.running / kLanes;
    set_ready(warp, block.warps[warp].ready & ~(1u << lane_id()));
}

void suspend() {
    Fiber& own = thread(block.running).fiber;
    stop_running();
    Fiber& next = next_fiber();
    if (&next != &own) switch_fiber(own, next);
}

void run_thread() {
    kernel->body(arguments);
    Fiber& own = thread(block.running).fiber;
    running_warp().returned |= 1u << lane_id();
    --block.live;
    stop_running();
    leave_fiber(own, next_fiber());
}

// ---------------------------------------------------------------------------------------------------------------
// Collectives: the last lane to come computes what all of them get.

bool all_at(const Warp& warp, Collective kind, uint32_t mask) {
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        const Lane& lane = warp.lanes[__builtin_ctz(rest)];
        if (lane.at != kind || lane.mask != mask) return false;
    }
    return true;
}

uint32_t reduce(Collective kind, uint32_t a, uint32_t b) {
    switch (kind) {
        case Collective::kReduceAdd: return a + b;
        case Collective::kReduceMin: return a < b ? a : b;
        case Collective::kReduceMax: return a > b ? a : b;
        case Collective::kReduceAnd: return a & b;
        case Collective::kReduceOr: return a | b;
        default: return a ^ b;
    }
}

uint64_t result_for(const Warp& warp, const Lane& lane, Collective kind, uint32_t mask) {
    uint32_t lanes = 0;
    switch (kind) {
        case Collective::kSyncWarp: return 0;
        case Collective::kShuffle: return warp.lanes[lane.source].value;
        case Collective::kBallot:
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                const unsigned i = __builtin_ctz(rest);
                lanes |= static_cast<uint32_t>(warp.lanes[i].value) << i;
            }
            return lanes;
        case Collective::kMatchAny:
            for (uint32_t rest = mask; rest; rest &= rest - 1) {
                const unsigned i = __builtin_ctz(rest);
                lanes |= static_cast<uint32_t>(warp.lanes[i].value == lane.value) << i;
            }
            return lanes;
        default: {
            uint32_t total = static_cast<uint32_t>(warp.lanes[__builtin_ctz(mask)].value);
            for (uint32_t rest = mask & (mask - 1); rest; rest &= rest - 1) {
                total = reduce(kind, total, static_cast<uint32_t>(warp.lanes[__builtin_ctz(rest)].value));
            }
            return total;
        }
    }
}

void complete(Warp& warp, Collective kind, uint32_t mask) {
    const bool differs = kind == Collective::kShuffle || kind == Collective::kMatchAny;
    const uint64_t common = differs ? 0 : result_for(warp, warp.lanes[__builtin_ctz(mask)], kind, mask);
    for (uint32_t rest = mask; rest; rest &= rest - 1) {
        Lane& lane = warp.lanes[__builtin_ctz(rest)];
        lane.result = differs ? result_for(warp, lane, kind, mask) : common;
        lane.at = Collective::kNone;
    }
    warp.waiting &= ~mask;
}

void release_barrier() {
    for (unsigned w = 0; w * kLanes < block.threads; ++w) {
        for (Lane& lane : block.warps[w].lanes) lane.at = Collective::kNone;
        set_ready(w, block.warps[w].exists);
    }
    block.last_predicates = block.predicates;
    block.at_barrier = 0;
    block.predicates = 0;
}

}  // namespace

uint64_t exchange(Collective kind, uint32_t mask, uint64_t value, uint32_t source) {
    Warp& warp = running_warp();
    const uint32_t own_bit = 1u << lane_id();
    Lane& own = warp.lanes[lane_id()];
    own.at = kind;
    own.mask = mask;
    own.source = source;
    own.value = value;
    if (!(mask & own_bit)) fail("%s, which lacks the calling lane", describe(own).text);
    if (mask & ~warp.exists) fail("%s, which names lanes that the block does not have", describe(own).text);
    if (kind == Collective::kShuffle && !(mask >> source & 1)) {
        fail("%s reads lane %u outside of it", describe(own).text, source);
    }
    warp.waiting |= own_bit;
    if ((warp.waiting & mask) == mask && all_at(warp, kind, mask)) {
        complete(warp, kind, mask);
        set_ready(block.running / kLanes, warp.ready | mask);
    } else {
        suspend();
    }
    return own.result;
}

uint32_t sync_block(bool predicate) {
    thread(block.running).at = Collective::kSyncThreads;
    block.predicates += predicate;
    if (++block.at_barrier == block.threads) {
        release_barrier();
    } else {
        suspend();
    }
    return block.last_predicates;
}

uint32_t lane_id() {
    return block.running % kLanes;
}

uint8_t* dynamic_shared() {
    return shared;
}

void fail(const char* format, ...) {
    char where[128];
    std::snprintf(where, sizeof where, "%s: block %u, thread %u: ", kernel->name, blockIdx.x, block.running);
    char what[256];
    va_list arguments_of_format;
    va_start(arguments_of_format, format);
    std::vsnprintf(what, sizeof what, format, arguments_of_format);
    va_end(arguments_of_format);
    set_error(std::string(where) + what);
    leave_fiber(thread(block.running).fiber, host);
    __builtin_unreachable();
}

Kernel::Kernel(const char* kernel_name, void (*kernel_body)(void**))
    : name(kernel_name), body(kernel_body), next(kernels) {
    kernels = this;
}

// ---------------------------------------------------------------------------------------------------------------
// Launch.

namespace {

// Static shared memory lies in a section of its own; the linker knows its bounds, if any kernel has some.
extern "C" uint8_t __start_dumont_shared[] __attribute__((weak, visibility("hidden")));
extern "C" uint8_t __stop_dumont_shared[] __attribute__((weak, visibility("hidden")));

// Red zones between the variables are overwritten too, hence neither instrumented code nor memset.
[[gnu::no_sanitize("address")]] void forget_static_shared() {
    volatile uint8_t* const end = __stop_dumont_shared;
    for (volatile uint8_t* byte = __start_dumont_shared; byte != end; ++byte) *byte = fill;
}

// Exactly as long as asked for, so that AddressSanitizer sees the first byte too far.
class DynamicShared {
public:
    explicit DynamicShared(unsigned size) : size_(size) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 16, size + canary()) == 0) bytes_.reset(static_cast<uint8_t*>(memory));
    }
    uint8_t* data() { return bytes_.get(); }
    void forget() { std::memset(bytes_.get(), fill, size_ + canary()); }
    bool intact() const {
        for (size_t i = 0; i < canary(); ++i) {
            if (bytes_.get()[size_ + i] != fill) return false;
        }
        return true;
    }

private:
    static constexpr size_t canary() {
#if defined(__SANITIZE_ADDRESS__)
        return 0;
#else
        return kCanary;
#endif
    }
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    unsigned size_;
    std::unique_ptr<uint8_t, Free> bytes_;
};

void prepare_block(unsigned threads) {
    block.threads = block.live = threads;
    block.running = block.at_barrier = block.predicates = block.ready_warps = 0;
    for (unsigned w = 0; w * kLanes < threads; ++w) {
        Warp& warp = block.warps[w];
        const unsigned lanes = threads - w * kLanes < kLanes ? threads - w * kLanes : kLanes;
        warp.exists = lanes == kLanes ? ~0u : (1u << lanes) - 1;
        warp.waiting = warp.returned = 0;
        set_ready(w, warp.exists);
        for (unsigned i = 0; i < lanes; ++i) {
            warp.lanes[i].at = Collective::kNone;
            const unsigned number = w * kLanes + i;
            prepare(warp.lanes[i].fiber, stacks.bottom(number), stacks.top(number), run_thread);
        }
    }
}

const Kernel* find(const char* name) {
    for (const Kernel* candidate = kernels; candidate; candidate = candidate->next) {
        if (std::strcmp(candidate->name, name) == 0) return candidate;
    }
    return nullptr;
}

int refuse(const std::string& reason) {
    set_error(reason);
    return 1;
}

}  // namespace
}  // namespace dumont::emulator

using namespace dumont::emulator;

int emulator_launch(const char* name, unsigned grid_x, unsigned block_x, unsigned shared_bytes, void** args) {
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> turn(one_at_a_time);
    error.clear();
    kernel = find(name);
    if (!kernel) return refuse(std::string(name) + ": no such kernel");
    if (grid_x == 0 || grid_x > 0x7FFFFFFF) return refuse("a grid has 1 to 2147483647 blocks");
    if (block_x == 0 || block_x > kMaxThreads) return refuse("a block has 1 to 1024 threads");
    if (shared_bytes > kMaxSharedBytes) return refuse("no device has that much shared memory");
    DynamicShared dynamic(shared_bytes);
    if (!dynamic.data() || !stacks.reserve(block_x)) return refuse("out of memory");
    shared = dynamic.data();
    arguments = args;
    random_state = order;
    gridDim = dim3(grid_x);
    blockDim = dim3(block_x);
    threadIdx = blockIdx = {0, 0, 0};
    host = Fiber();
    for (; blockIdx.x < grid_x; ++blockIdx.x) {
        dynamic.forget();
        forget_static_shared();
        prepare_block(block_x);
        switch_fiber(host, next_fiber());
        if (!error.empty()) {
            stacks.forget_frames(block_x);
            return 1;
        }
        if (!dynamic.intact()) {
            return refuse(kernel->name + (": block " + std::to_string(blockIdx.x)) +
                          ": wrote past its dynamic shared memory");
        }
    }
    return 0;
}

const char* emulator_error() {
    return error.c_str();
}

void emulator_set_order(unsigned seed) {
    order = seed;
}

void emulator_set_fill(unsigned byte) {
    fill = static_cast<uint8_t>(byte);
}

void emulator_set_abort(int abort_on_error) {
    aborts = abort_on_error != 0;
}

uint64_t emulator_switches() {
    return switches;
}
