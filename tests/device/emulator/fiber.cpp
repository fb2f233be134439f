#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define DUMONT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DUMONT_ASAN 1
#endif
#endif

#if defined(DUMONT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace dumont::emulator {

Stacks::~Stacks() {
    if (memory_) munmap(memory_, count_ * (kGuard + kSize));
}

bool Stacks::reserve(size_t count) {
    if (count <= count_) return true;
    const size_t bytes = count * (kGuard + kSize);
    void* memory = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return false;
    if (memory_) munmap(memory_, count_ * (kGuard + kSize));
    memory_ = static_cast<char*>(memory);
    count_ = count;
    for (size_t i = 0; i < count; ++i) {
        if (mprotect(bottom(i), kSize, PROT_READ | PROT_WRITE) != 0) return false;
    }
    return true;
}

void Stacks::forget_frames([[maybe_unused]] size_t count) {
#if defined(DUMONT_ASAN)
    for (size_t i = 0; i < count; ++i) __asan_unpoison_memory_region(bottom(i), kSize);
#endif
}

namespace {

Fiber* left;    // of the switch in progress
Fiber* entered;

#if defined(DUMONT_ASAN)
void begin_switch(Fiber& from, Fiber& to, bool for_ever) {
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &from.fake_stack, to.stack_bottom, to.stack_size);
}

void end_switch() {
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(entered->fake_stack, &bottom, &size);
    if (left->stack_bottom == nullptr) {
        left->stack_bottom = bottom;
        left->stack_size = size;
    }
}
#else
void begin_switch(Fiber&, Fiber&, bool) {}
void end_switch() {}
#endif

[[noreturn]] void start() {
    end_switch();
    entered->entry();
    __builtin_trap();
}

}  // namespace

#if defined(DUMONT_UCONTEXT)

static void prepare_context(Fiber& fiber, char* bottom, char* top) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = bottom;
    fiber.context.uc_stack.ss_size = static_cast<size_t>(top - bottom);
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, start, 0);
}

static void switch_context(Fiber& from, Fiber& to) {
    swapcontext(&from.context, &to.context);
}

#else

extern "C" void dumont_switch_stack(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
    .text
    .p2align 4
    .hidden dumont_switch_stack
    .globl dumont_switch_stack
    .type dumont_switch_stack, @function
dumont_switch_stack:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size dumont_switch_stack, . - dumont_switch_stack
)");
constexpr size_t kSavedWords = 8;   // six registers, the address to return to, and a word that ends a backtrace
constexpr size_t kReturnWord = 6;
#else
asm(R"(
    .text
    .p2align 4
    .hidden dumont_switch_stack
    .globl dumont_switch_stack
    .type dumont_switch_stack, %function
dumont_switch_stack:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size dumont_switch_stack, . - dumont_switch_stack
)");
constexpr size_t kSavedWords = 20;  // x19 to x30, d8 to d15
constexpr size_t kReturnWord = 11;
#endif

static void prepare_context(Fiber& fiber, char*, char* top) {
    // Above the saved words the stack is aligned to 16; `start` finds it as a call would have left it.
    uint64_t* words = reinterpret_cast<uint64_t*>(top) - kSavedWords;
    for (size_t i = 0; i < kSavedWords; ++i) words[i] = 0;
    words[kReturnWord] = reinterpret_cast<uint64_t>(&start);
    fiber.stack_pointer = words;
}

static void switch_context(Fiber& from, Fiber& to) {
    dumont_switch_stack(&from.stack_pointer, to.stack_pointer);
}

#endif

void prepare(Fiber& fiber, char* bottom, char* top, void (*entry)()) {
    fiber.entry = entry;
    fiber.stack_bottom = bottom;
    fiber.stack_size = static_cast<size_t>(top - bottom);
    fiber.fake_stack = nullptr;
    prepare_context(fiber, bottom, top);
}

void switch_fiber(Fiber& from, Fiber& to) {
    left = &from;
    entered = &to;
    begin_switch(from, to, false);
    switch_context(from, to);
    end_switch();
}

void leave_fiber(Fiber& from, Fiber& to) {
    left = &from;
    entered = &to;
    begin_switch(from, to, true);
    switch_context(from, to);
}

}  // namespace dumont::emulator
