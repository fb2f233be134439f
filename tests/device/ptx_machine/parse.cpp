// Reads PTX text as NVRTC writes it.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <cstring>

#include "program.h"

namespace dumont::ptx {
namespace {

constexpr uint32_t kSharedAlignment = 16;

// Registers that are visible in a pair of braces: single ones, and families %r<9> by their prefix.
struct Scope {
    std::map<std::string, std::pair<RegisterClass, uint32_t>> single, family;
};

uint32_t type_size(const std::string& type) {
    const std::string digits = type.substr(type.find_first_of("0123456789"));
    return static_cast<uint32_t>(std::strtoul(digits.c_str(), nullptr, 10)) / 8;
}

bool is_name(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
}

class Parser {
public:
    explicit Parser(const std::string& text) : text_(text) {}

    Program run() {
        while (skip_space()) module_item();
        return std::move(program_);
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        const auto end = text_.begin() + static_cast<std::ptrdiff_t>(at_);
        throw Failure("PTX line " + std::to_string(1 + std::count(text_.begin(), end, '\n')) + ": " + what);
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    bool skip_space() {
        for (; at_ < text_.size(); ++at_) {
            if (text_.compare(at_, 2, "//") == 0) {
                at_ = text_.find('\n', at_);
                if (at_ == std::string::npos) at_ = text_.size();
            } else if (!std::isspace(static_cast<unsigned char>(text_[at_]))) {
                break;
            }
        }
        return at_ < text_.size();
    }

    bool take(char wanted) {
        skip_space();
        if (peek() != wanted) return false;
        ++at_;
        return true;
    }

    void expect(char wanted) {
        if (!take(wanted)) fail(std::string("expected ") + wanted);
    }

    std::string word() {
        skip_space();
        const size_t begin = at_;
        while (is_name(peek())) ++at_;
        if (begin == at_) fail("expected a name");
        return text_.substr(begin, at_ - begin);
    }

    int64_t number() {
        skip_space();
        const char* begin = text_.c_str() + at_;
        char* end = nullptr;
        const bool negative = *begin == '-';
        const uint64_t value = std::strtoull(begin + negative, &end, 0);
        if (end == begin + negative) fail("expected a number");
        at_ += static_cast<size_t>(end - begin);
        if (peek() == 'U') ++at_;
        return static_cast<int64_t>(negative ? -value : value);
    }

    void skip_line() { at_ = std::min(text_.find('\n', at_), text_.size()); }

    void skip_past(char end) {
        at_ = text_.find(end, at_);
        if (at_ == std::string::npos) fail(std::string("expected ") + end);
        ++at_;
    }

    // -------------------------------------------------------------------------------------------------------------
    // Outside functions.

    void module_item() {
        const std::string directive = word();
        if (directive == ".version" || directive == ".target" || directive == ".address_size") return skip_line();
        if (directive == ".visible" || directive == ".extern" || directive == ".weak") return;
        if (directive == ".file") return file();
        if (directive == ".section") return skip_past('{'), skip_braces();
        if (directive == ".entry") return function();
        if (directive == ".global" || directive == ".shared") return variable(directive, program_.symbols);
        fail("cannot read " + directive);
    }

    void skip_braces() {
        for (int depth = 1; depth > 0; ++at_) {
            if (peek() == '\0') fail("expected }");
            depth += (peek() == '{') - (peek() == '}');
        }
    }

    void file() {
        const auto index = static_cast<uint16_t>(number());
        skip_past('"');
        const size_t begin = at_;
        skip_past('"');
        const std::string path = text_.substr(begin, at_ - 1 - begin);
        program_.files[index] = path.substr(path.rfind('/') + 1);
        skip_line();
    }

    // .global .align 4 .u32 name[2] = {1, 2};
    void variable(const std::string& space, std::map<std::string, Symbol>& symbols) {
        uint64_t alignment = 1;
        std::string item = word();
        for (; item[0] == '.'; item = word()) {
            if (item == ".align") {
                alignment = static_cast<uint64_t>(number());
            } else {
                element_size_ = type_size(item);
            }
        }
        uint64_t count = 1;
        if (take('[')) count = peek() == ']' ? 0 : static_cast<uint64_t>(number()), expect(']');
        const uint64_t size = count * element_size_;
        alignment = std::max<uint64_t>(alignment, element_size_);
        const auto align = [alignment](uint64_t offset) { return (offset + alignment - 1) / alignment * alignment; };
        if (space == ".shared" && size == 0) {
            symbols[item] = {Space::kShared, 0, 0};
        } else if (space == ".shared") {
            const uint64_t offset = align(static_shared_);
            static_shared_ = static_cast<uint32_t>(offset + size);
            symbols[item] = {Space::kShared, offset, size};
        } else if (space == ".local") {
            const uint64_t offset = align(function_->local_size);
            function_->local_size = static_cast<uint32_t>(offset + size);
            symbols[item] = {Space::kLocal, offset, size};
        } else {
            const uint64_t offset = align(program_.global.size());
            program_.global.resize(offset + size);
            symbols[item] = {Space::kGlobal, offset, size};
            if (take('=')) initial_values(offset);
        }
        expect(';');
    }

    void initial_values(uint64_t offset) {
        const bool list = take('{');
        do {
            const int64_t value = number();
            std::memcpy(program_.global.data() + offset, &value, element_size_);
            offset += element_size_;
        } while (list && take(','));
        if (list) expect('}');
    }

    // -------------------------------------------------------------------------------------------------------------
    // Functions.

    void function() {
        program_.functions.emplace_back();
        function_ = &program_.functions.back();
        function_->name = word();
        if (take('(')) parameters();
        while (!take('{')) skip_line();  // .maxntid and the like
        static_shared_ = 0;
        source_ = {};
        scopes_.assign(1, {});
        while (!scopes_.empty()) body_item();
        function_->shared_size = (static_shared_ + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
    }

    void parameters() {
        uint64_t offset = 0;
        while (!take(')')) {
            uint64_t size = 0, alignment = 1;
            std::string item = word();
            for (; item[0] == '.'; item = word()) {
                if (item == ".align") alignment = static_cast<uint64_t>(number());
                if (item != ".param" && item != ".align") size = type_size(item);
            }
            alignment = std::max(alignment, size);
            if (take('[')) size *= static_cast<uint64_t>(number()), expect(']');
            offset = (offset + alignment - 1) / alignment * alignment;
            function_->symbols[item] = {Space::kParam, offset, size};
            function_->parameter_sizes.push_back(static_cast<uint32_t>(size));
            offset += size;
            take(',');
        }
    }

    void body_item() {
        if (take('{')) return scopes_.emplace_back(), void();
        if (take('}')) return scopes_.pop_back();
        if (peek() == '.') {
            const std::string directive = word();
            if (directive == ".loc") return location();
            if (directive == ".reg") return registers();
            if (directive == ".pragma") return skip_past(';');
            if (directive == ".shared" || directive == ".local") return variable(directive, function_->symbols);
            fail("cannot read " + directive);
        }
        Statement statement;
        const size_t begin = at_;
        if (take('@')) {
            statement.guarded = true;
            statement.guard = operand();
        }
        const std::string name = word();
        if (take(':')) {
            function_->labels[name] = function_->statements.size();
            return;
        }
        statement.opcode = name;
        while (!take(';')) {
            statement.operands.push_back(operand());
            take(',');
        }
        statement.source = source_;
        statement.text = one_line(text_.substr(begin, at_ - begin));
        function_->statements.push_back(std::move(statement));
    }

    static std::string one_line(const std::string& text) {
        std::string line;
        for (const char c : text) {
            const bool space = std::isspace(static_cast<unsigned char>(c));
            if (!space) line += c;
            if (space && !line.empty() && line.back() != ' ') line += ' ';
        }
        if (!line.empty() && line.back() == ';') line.pop_back();
        return line;
    }

    void location() {
        const auto file = static_cast<uint16_t>(number());
        const auto line = static_cast<uint32_t>(number());
        if (line != 0) source_ = {file, line};
        skip_line();
    }

    void registers() {
        const std::string type = word();
        const RegisterClass register_class = type == ".pred"        ? RegisterClass::kPredicate
                                             : type_size(type) == 8 ? RegisterClass::kLong
                                                                    : RegisterClass::kWord;
        uint32_t& next = function_->registers[static_cast<size_t>(register_class)];
        do {
            const std::string name = word();
            if (take('<')) {
                scopes_.back().family[name] = {register_class, next};
                next += static_cast<uint32_t>(number());
                expect('>');
            } else {
                scopes_.back().single[name] = {register_class, next++};
            }
        } while (take(','));
        expect(';');
    }

    // -------------------------------------------------------------------------------------------------------------
    // Operands.

    Operand operand() {
        if (take('[')) {
            Operand address = operand();
            if (take('+')) address.number += number();
            expect(']');
            return address;
        }
        if (take('{')) {
            Operand list;
            list.kind = Operand::Kind::kList;
            do list.list.push_back(operand());
            while (take(','));
            expect('}');
            return list;
        }
        if (take('!')) {
            Operand negated = operand();
            negated.negated = true;
            return negated;
        }
        skip_space();
        if (std::isdigit(static_cast<unsigned char>(peek())) || peek() == '-') {
            Operand value;
            value.number = number();
            return value;
        }
        Operand named = resolve(word());
        if (!take('|')) return named;
        Operand pair;
        pair.kind = Operand::Kind::kList;
        pair.list = {named, operand()};
        return pair;
    }

    Operand resolve(const std::string& name) const {
        Operand operand;
        operand.name = name;
        operand.kind = name[0] == '%' ? Operand::Kind::kSpecial : Operand::Kind::kSymbol;
        const size_t digits = name.find_last_not_of("0123456789") + 1;
        for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
            const auto single = scope->single.find(name);
            const auto family = scope->family.find(name.substr(0, digits));
            const bool in_family = single == scope->single.end();
            if (in_family && (family == scope->family.end() || digits == name.size())) continue;
            const auto& [register_class, id] = in_family ? family->second : single->second;
            operand.kind = Operand::Kind::kRegister;
            operand.register_class = register_class;
            operand.id = id + (in_family ? static_cast<uint32_t>(std::stoul(name.substr(digits))) : 0);
            break;
        }
        return operand;
    }

    const std::string& text_;
    size_t at_ = 0;
    Program program_;
    Function* function_ = nullptr;
    std::vector<Scope> scopes_;
    SourceLine source_;
    uint64_t element_size_ = 1;
    uint32_t static_shared_ = 0;
};

}  // namespace

Program parse(const std::string& text) {
    return Parser(text).run();
}

}  // namespace dumont::ptx
