// Threads of control that share one operating system thread: a stack each, and a switch between two of them.
//
// On x86-64 and aarch64 a switch saves the registers that a function call must preserve and nothing else: a few
// nanoseconds. ucontext, used elsewhere, enters the kernel twice to save and restore the signal mask.
#pragma once

#include <cstddef>

#if !defined(DUMONT_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define DUMONT_UCONTEXT 1
#endif

#if defined(DUMONT_UCONTEXT)
#include <ucontext.h>
#endif

namespace dumont::emulator {

struct Fiber {
#if defined(DUMONT_UCONTEXT)
    ucontext_t context;
#else
    void* stack_pointer;  // while it is not running
#endif
    void (*entry)();                    // never returns
    const void* stack_bottom = nullptr;  // null: the stack of whoever launched
    size_t stack_size = 0;
    void* fake_stack = nullptr;  // AddressSanitizer's, while it is not running
};

// `count` stacks side by side, with an inaccessible page below each.
class Stacks {
public:
    static constexpr size_t kSize = 256 * 1024;  // address space; only pages that are touched take memory

    ~Stacks();
    bool reserve(size_t count);
    char* bottom(size_t index) const { return memory_ + index * (kGuard + kSize) + kGuard; }
    // Staggered: at equal distances the hot ends of all stacks would compete for a few sets of the caches.
    char* top(size_t index) const { return bottom(index) + kSize - index * 320 % (16 * 1024); }
    void forget_frames(size_t count);  // after fibers were abandoned: AddressSanitizer remembers their variables

private:
    static constexpr size_t kGuard = 64 * 1024;  // a multiple of every page size
    char* memory_ = nullptr;
    size_t count_ = 0;
};

// Makes `fiber` start `entry` on an empty stack at the first switch to it. What it did before is forgotten.
void prepare(Fiber& fiber, char* bottom, char* top, void (*entry)());

void switch_fiber(Fiber& from, Fiber& to);

// The last switch of `from`.
void leave_fiber(Fiber& from, Fiber& to);

}  // namespace dumont::emulator
