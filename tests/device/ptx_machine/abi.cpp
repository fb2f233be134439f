#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sstream>

#include "machine.h"
#include "machine_abi.h"

namespace {

using dumont::ptx::Failure;
using dumont::ptx::Kernel;
using dumont::ptx::Machine;

std::mutex one_at_a_time;
thread_local std::string error;
thread_local std::string answer;

Machine& machine() {
    static auto* const the_machine =
        new Machine;  // lives as long as the process: a thread may still launch while it ends
    return *the_machine;
}

template <class Act>
int guarded(Act act) {
    const std::lock_guard<std::mutex> turn(one_at_a_time);
    try {
        error.clear();
        act();
        return 0;
    } catch (const std::exception& failure) {
        error = failure.what();
        return 1;
    }
}

uint64_t address(const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer);
}

}  // namespace

int machine_load(const char* ptx) {
    return guarded([&] { machine().load(ptx); });
}

int machine_load_file(const char* path) {
    return guarded([&] {
        std::ostringstream text;
        text << std::ifstream(path).rdbuf();
        if (text.str().empty()) throw Failure(std::string(path) + ": no PTX");
        machine().load(text.str());
    });
}

int machine_launch(const char* kernel, unsigned grid_x, unsigned block_x, unsigned shared_bytes, void** args) {
    return guarded([&] { machine().launch(kernel, grid_x, block_x, shared_bytes, args); });
}

const char* machine_error() {
    return error.c_str();
}

void machine_set_order(unsigned seed) {
    guarded([&] { machine().order = seed; });
}

void machine_set_fill(unsigned byte) {
    guarded([&] { machine().fill = static_cast<uint8_t>(byte); });
}

void machine_set_most_steps(uint64_t most) {
    guarded([&] { machine().most_steps = most; });
}

void machine_add_memory(const void* begin, uint64_t size) {
    guarded([&] { machine().global.add(address(begin), size); });
}

void machine_remove_memory(const void* begin) {
    guarded([&] { machine().global.remove(address(begin)); });
}

void machine_set_strict(int strict) {
    guarded([&] { machine().global.strict = strict != 0; });
}

void machine_mark_unwritten(const void* begin, uint64_t size) {
    guarded([&] { machine().races.mark_unwritten(address(begin), size); });
}

void machine_set_counting(int counting) {
    guarded([&] { machine().counting = counting != 0; });
}

const char* machine_counts() {
    guarded([&] {
        answer = "{";
        for (const auto& [name, kernel] : machine().kernels) {
            answer += (answer.size() == 1 ? "\"" : ",\n \"") + name + "\": " + kernel.counts.json();
        }
        answer += "}";
    });
    return answer.c_str();
}

void machine_reset_counts() {
    guarded([&] {
        for (auto& named : machine().kernels) named.second.counts = {};
    });
}

int machine_barriers(const char* kernel) {
    int count = -1;
    guarded([&] { count = static_cast<int>(machine().kernels.at(kernel).barriers.size()); });
    return count;
}

const char* machine_barrier(const char* kernel, int index) {
    guarded([&] {
        machine().kernel = &machine().kernels.at(kernel);
        answer = machine().place(machine().kernel->barriers.at(static_cast<size_t>(index)));
    });
    return answer.c_str();
}

void machine_weaken(const char* kernel, int index) {
    guarded([&] {
        Kernel& chosen = machine().kernels.at(kernel);
        for (size_t i = 0; i < chosen.barriers.size(); ++i)
            chosen.code[chosen.barriers[i]].weakened = static_cast<int>(i) == index;
    });
}
