// What a PTX text says: kernels of statements, in the terms of the text; `decode` makes instructions of them.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace dumont::ptx {

// Whatever ends a launch or the reading of a text.
struct Failure : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Space : uint8_t { kNone, kGeneric, kGlobal, kShared, kLocal, kParam };

// Registers of 16 bits live in 32: readers look at the low half.
enum class RegisterClass : uint8_t { kPredicate, kWord, kLong };

struct Operand {
    enum class Kind : uint8_t { kRegister, kNumber, kSymbol, kSpecial, kList };

    Kind kind = Kind::kNumber;
    RegisterClass register_class = RegisterClass::kWord;
    bool negated = false;       // !%p
    uint32_t id = 0;            // of the register, in its class
    int64_t number = 0;         // the value, or in [name+number] what is added
    std::string name;           // of a symbol or special register
    std::vector<Operand> list;  // {a, b} and a|b
};

// A line of CUDA source, as .loc names it.
struct SourceLine {
    uint16_t file = 0;  // in Program::files, 0 if unknown
    uint32_t line = 0;
};

struct Statement {
    std::string opcode;  // with all its modifiers
    std::vector<Operand> operands;
    bool guarded = false;
    Operand guard;
    SourceLine source;
    std::string text;
};

struct Symbol {
    Space space;
    uint64_t offset;  // in its space
    uint64_t size;    // 0 for the dynamic shared memory
};

struct Function {
    std::string name;
    std::vector<uint32_t> parameter_sizes;
    std::vector<Statement> statements;
    std::map<std::string, size_t> labels;  // number of the statement that follows
    std::map<std::string, Symbol> symbols;
    uint32_t registers[3] = {};  // of each class
    uint32_t shared_size = 0;    // static
    uint32_t local_size = 0;     // of a thread
};

struct Program {
    std::vector<Function> functions;
    std::map<std::string, Symbol> symbols;
    std::vector<uint8_t> global;          // what .global variables start with
    std::map<uint16_t, std::string> files;  // without their folders
};

// Throws Failure, with the line, for what it does not know.
Program parse(const std::string& text);

}  // namespace dumont::ptx
