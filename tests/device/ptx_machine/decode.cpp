// Makes instructions of a function's statements: operands become places in a warp's memory, branches numbers of
// instructions.
#include <algorithm>
#include <set>

#include "layout.h"
#include "machine.h"

namespace dumont::ptx {
namespace {

constexpr uint32_t kLaneBytes[] = {0, 4 * kLanes, 8 * kLanes};  // of a register, by class

std::vector<std::string> split(const std::string& opcode) {
    std::vector<std::string> parts(1);
    for (const char c : opcode) {
        if (c == '.') {
            parts.emplace_back();
        } else {
            parts.back() += c;
        }
    }
    return parts;
}

class Decoder {
public:
    Decoder(const Program& program, const Function& function) : program_(program), function_(function) {
        kernel_.function = &function;
        for (size_t i = 1; i < 3; ++i) slots_[i].assign(function.registers[i], kNone);
        kernel_.predicates = function.registers[0];
    }

    Kernel run() {
        const std::vector<Block> blocks = lay_out(function_);
        std::map<size_t, uint32_t> starts;  // of blocks: statement to instruction
        for (const Block& block : blocks) {
            starts[block.begin] = static_cast<uint32_t>(kernel_.code.size());
            for (size_t i = block.begin; i < block.end; ++i) add(i);
            if (block.jumps) kernel_.code.push_back(jump(block.end));
        }
        for (Instruction& instruction : kernel_.code) {
            if (instruction.step == Step::kBranch) instruction.target = starts.at(instruction.target);
        }
        for (uint32_t i = 0; i < kernel_.code.size(); ++i) {
            const Collective kind = kernel_.code[i].collective;
            if (kind == Collective::kSyncWarp || kind >= Collective::kSyncBlock) kernel_.barriers.push_back(i);
        }
        return std::move(kernel_);
    }

private:
    [[noreturn]] void fail(const std::string& what) const {
        throw Failure(function_.name + ": " + what + ": " + statement_->text);
    }

    static Instruction jump(size_t statement) {
        Instruction instruction;
        instruction.step = Step::kBranch;
        instruction.target = static_cast<uint32_t>(statement);
        return instruction;
    }

    // -------------------------------------------------------------------------------------------------------------
    // Operands. A register gets its place at its first use, so that neighbours in the code are neighbours in memory.

    uint32_t place(const Operand& operand, RegisterClass wanted) {
        if (operand.kind == Operand::Kind::kRegister) {
            if (operand.register_class != wanted) fail("a register of another width");
            uint32_t& slot = slots_[static_cast<size_t>(wanted)][operand.id];
            if (slot == kNone) slot = reserve(wanted);
            return slot;
        }
        if (operand.kind == Operand::Kind::kList) fail("an operand that is a list");
        const std::string special = operand.kind == Operand::Kind::kSpecial ? operand.name : "";
        const uint64_t value =
            operand.kind == Operand::Kind::kSymbol ? address_of(operand) : static_cast<uint64_t>(operand.number);
        for (const Constant& known : kernel_.constants) {
            if (known.register_class == wanted && known.value == value && known.special == special) return known.slot;
        }
        kernel_.constants.push_back({reserve(wanted), wanted, value, special});
        return kernel_.constants.back().slot;
    }

    uint32_t reserve(RegisterClass register_class) {
        const uint32_t slot = kernel_.register_bytes;
        kernel_.register_bytes += kLaneBytes[static_cast<size_t>(register_class)];
        return slot;
    }

    uint32_t predicate(const Operand& operand) const {
        if (operand.kind != Operand::Kind::kRegister || operand.register_class != RegisterClass::kPredicate) {
            fail("not a predicate");
        }
        return operand.id;
    }

    const Symbol& symbol(const std::string& name) const {
        const auto own = function_.symbols.find(name);
        if (own != function_.symbols.end()) return own->second;
        const auto shared = program_.symbols.find(name);
        if (shared == program_.symbols.end()) fail("no symbol " + name);
        return shared->second;
    }

    uint64_t address_of(const Operand& operand) const {
        const Symbol& named = symbol(operand.name);
        uint64_t base = named.offset;
        if (named.space == Space::kShared && named.size == 0) base = function_.shared_size;
        if (named.space == Space::kGlobal) base += reinterpret_cast<uintptr_t>(program_.global.data());
        return base + static_cast<uint64_t>(operand.number);
    }

    const Operand& at(size_t index) const {
        if (index >= statement_->operands.size()) fail("too few operands");
        return statement_->operands[index];
    }

    // -------------------------------------------------------------------------------------------------------------
    // Statements.

    void add(size_t index) {
        statement_ = &function_.statements[index];
        Instruction instruction;
        instruction.statement = static_cast<uint32_t>(index);
        if (statement_->guarded) {
            instruction.guard = predicate(statement_->guard);
            instruction.guard_negated = statement_->guard.negated;
        }
        if (takes_apart()) return take_apart(instruction);
        fill(instruction);
        kernel_.code.push_back(instruction);
    }

    // `mov` of a register to two that have half its width.
    bool takes_apart() const {
        const std::vector<Operand>& operands = statement_->operands;
        return split(statement_->opcode)[0] == "mov" && !operands.empty() && operands[0].kind == Operand::Kind::kList;
    }

    void take_apart(Instruction half) {
        const std::vector<Operand>& halves = at(0).list;
        if (halves.size() != 2) fail("not two halves");
        for (size_t n = 0; n < 2; ++n) {
            const Operation& operation = operations().at(statement_->opcode + (n == 0 ? " low" : " high"));
            half.run = operation.run;
            half.count = operation.count;
            half.to = place(halves[n], operation.to);
            half.from[0] = place(at(1), operation.from[0]);
            kernel_.code.push_back(half);
        }
    }

    void put_together(Instruction& i) {
        const std::vector<Operand>& halves = at(1).list;
        if (halves.size() != 2) fail("not two halves");
        const Operation& operation = operations().at(statement_->opcode + " both");
        i.run = operation.run;
        i.count = operation.count;
        i.to = place(at(0), operation.to);
        for (size_t n = 0; n < 2; ++n) i.from[n] = place(halves[n], operation.from[n]);
    }

    void fill(Instruction& i) {
        const std::string& opcode = statement_->opcode;
        const std::vector<std::string> parts = split(opcode);
        const std::string& base = parts[0];
        if (base == "mov" && at(1).kind == Operand::Kind::kList) return put_together(i);
        const auto known = operations().find(opcode);
        if (known != operations().end()) return lanewise(i, known->second);
        if (base == "bra") return branch(i);
        if (base == "ret" || base == "exit") return step(i, Step::kExit, CountClass::kOther);
        if (base == "trap") return step(i, Step::kTrap, CountClass::kOther);
        if (base == "ld" || base == "st" || base == "atom" || base == "red") return memory(i, parts);
        if (base == "cvt" && parts.size() == 3) return convert(i, parts);
        if (base == "cvta") return generic_address(i, parts);
        if (base == "setp" && parts.size() == 3) return compare(i);
        if (base == "selp") return select(i, parts);
        if (parts.back() == "pred" && (i.run = predicate_handler(opcode))) return predicates(i);
        if (base == "prefetch" || base == "prefetchu" || base == "membar" || base == "fence") return nothing(i);
        if (base == "bar" || base == "barrier" || base == "shfl" || base == "vote" || base == "match" ||
            base == "redux") {
            return collective(i, opcode);
        }
        fail("an instruction that the machine does not know");
    }

    static void step(Instruction& i, Step step, CountClass count) {
        i.step = step;
        i.count = count;
    }

    void lanewise(Instruction& i, const Operation& operation) {
        i.run = operation.run;
        i.count = operation.count;
        i.to = place(at(0), operation.to);
        if (statement_->operands.size() != operation.from.size() + 1) fail("another number of operands");
        for (size_t n = 0; n < operation.from.size(); ++n) i.from[n] = place(at(n + 1), operation.from[n]);
    }

    void branch(Instruction& i) {
        step(i, Step::kBranch, CountClass::kBranch);
        i.target = static_cast<uint32_t>(function_.labels.at(at(0).name));
    }

    // Loads, stores and atomics: which operand is the address, which are data.
    void memory(Instruction& i, const std::vector<std::string>& parts) {
        const bool stores = parts[0] == "st" || parts[0] == "red";
        const Operand& address = at(stores ? 0 : 1);
        const Operand& data = at(stores ? 1 : 0);
        const std::vector<Operand> elements =
            data.kind == Operand::Kind::kList ? data.list : std::vector<Operand>{data};
        RegisterClass width = parts.back().substr(1) == "64" ? RegisterClass::kLong : RegisterClass::kWord;
        for (const Operand& element : elements) {
            if (element.kind == Operand::Kind::kRegister) width = element.register_class;
        }
        const MemoryOperation operation = memory_operation(parts, width);
        if (!operation.run) fail("an access that the machine does not know");
        if (operation.elements != elements.size()) fail("another number of elements");
        i.run = operation.run;
        i.space = operation.space;
        i.elements = operation.elements;
        i.read_only = operation.read_only;
        i.count = parts[0] == "atom" || parts[0] == "red" ? CountClass::kAtomic
                  : i.space == Space::kShared             ? CountClass::kShared
                  : i.space == Space::kLocal              ? CountClass::kLocal
                  : i.space == Space::kParam              ? CountClass::kMove
                                                          : CountClass::kGlobal;
        for (size_t n = 0; n < elements.size(); ++n) i.vector[n] = place(elements[n], width);
        for (size_t n = stores ? 1 : 2; n < statement_->operands.size() && i.count == CountClass::kAtomic; ++n) {
            i.from[n - (stores ? 0 : 1)] = place(at(n), width);
        }
        if (address.kind == Operand::Kind::kRegister) {
            i.wide_address = address.register_class == RegisterClass::kLong;
            i.from[0] = place(address, address.register_class);
            i.displacement = address.number;
        } else {
            i.displacement = static_cast<int64_t>(address_of(address));
        }
    }

    void convert(Instruction& i, const std::vector<std::string>& parts) {
        for (size_t n = 0; n < 2; ++n) {
            if (parts[n + 1].find_first_not_of("us0123456789") != std::string::npos) fail("not an integer conversion");
            i.bits[n] = static_cast<uint8_t>(std::stoul(parts[n + 1].substr(1)));
        }
        i.is_signed = parts[2][0] == 's';
        i.predicate_negated = parts[1][0] == 's';  // the target's sign fills its register
        const RegisterClass to = at(0).register_class;
        const RegisterClass from = at(1).kind == Operand::Kind::kRegister ? at(1).register_class : RegisterClass::kLong;
        i.count = CountClass::kMove;
        i.run = conversion(to, from);
        i.to = place(at(0), to);
        i.from[0] = place(at(1), from);
    }

    void generic_address(Instruction& i, const std::vector<std::string>& parts) {
        const bool back = parts[1] == "to";
        const std::string& space = parts[back ? 2 : 1];
        const uint64_t window = space == "shared" ? kSharedWindow : space == "local" ? kLocalWindow : 0;
        if (parts.back() != "u64" || (window == 0 && space != "global"))
            fail("an address that the machine does not know");
        lanewise_with(i, "add.u64", back ? -window : window);
        i.count = CountClass::kMove;
    }

    void lanewise_with(Instruction& i, const char* opcode, uint64_t second) {
        i.run = operations().at(opcode).run;
        i.to = place(at(0), RegisterClass::kLong);
        i.from[0] = place(at(1), RegisterClass::kLong);
        Operand number;
        number.number = static_cast<int64_t>(second);
        i.from[1] = place(number, RegisterClass::kLong);
    }

    void compare(Instruction& i) {
        const auto found = operations().find(statement_->opcode + " ");
        if (found == operations().end()) fail("a comparison that the machine does not know");
        i.run = found->second.run;
        i.count = CountClass::kCompare;
        i.to_predicate = predicate(at(0));
        for (size_t n = 0; n < 2; ++n) i.from[n] = place(at(n + 1), found->second.from[n]);
    }

    void select(Instruction& i, const std::vector<std::string>& parts) {
        const bool wide = parts[1].substr(1) == "64";
        const RegisterClass width = wide ? RegisterClass::kLong : RegisterClass::kWord;
        i.run = operations().at(wide ? "selp 64" : "selp 32").run;
        i.count = CountClass::kMove;
        i.to = place(at(0), width);
        for (size_t n = 0; n < 2; ++n) i.from[n] = place(at(n + 1), width);
        i.from[2] = predicate(at(3));
    }

    void predicates(Instruction& i) {
        i.count = CountClass::kCompare;
        i.to_predicate = predicate(at(0));
        for (size_t n = 1; n < statement_->operands.size(); ++n) {
            const bool constant = at(n).kind == Operand::Kind::kNumber;
            if (at(n).negated) fail("a negated predicate");
            if (constant) i.displacement = at(n).number != 0 ? -1 : 0;
            if (!constant) i.from[n - 1] = predicate(at(n));
        }
    }

    // Prefetches and fences: nothing to do, as they touch no data and order nothing between the threads of a block by
    // themselves.
    static void nothing(Instruction& i) { i.run = [](Machine&, Warp&, const Instruction&) {}; }

    void collective(Instruction& i, const std::string& opcode) {
        struct Form {
            Collective kind;
            char operands[5];  // d: result, D: result in a predicate, p: predicate, l: 64 bits, v: 32 bits, m: mask, 0:
                               // that number
        };
        static const std::map<std::string, Form> kForms = {
            {"bar.sync", {Collective::kSyncBlock, "0"}},
            {"barrier.sync", {Collective::kSyncBlock, "0"}},
            {"bar.red.and.pred", {Collective::kBlockAnd, "D0p"}},
            {"bar.red.or.pred", {Collective::kBlockOr, "D0p"}},
            {"bar.red.popc.u32", {Collective::kBlockPopc, "d0p"}},
            {"bar.warp.sync", {Collective::kSyncWarp, "m"}},
            {"vote.sync.ballot.b32", {Collective::kBallot, "dpm"}},
            {"vote.sync.any.pred", {Collective::kAny, "Dpm"}},
            {"vote.sync.all.pred", {Collective::kAll, "Dpm"}},
            {"match.any.sync.b32", {Collective::kMatchAny, "dvm"}},
            {"match.any.sync.b64", {Collective::kMatchAny, "dlm"}},
            {"redux.sync.add.s32", {Collective::kReduceAdd, "dvm"}},
            {"redux.sync.add.u32", {Collective::kReduceAdd, "dvm"}},
            {"redux.sync.min.s32", {Collective::kReduceMin, "dvm"}},
            {"redux.sync.min.u32", {Collective::kReduceMin, "dvm"}},
            {"redux.sync.max.s32", {Collective::kReduceMax, "dvm"}},
            {"redux.sync.max.u32", {Collective::kReduceMax, "dvm"}},
            {"redux.sync.and.b32", {Collective::kReduceAnd, "dvm"}},
            {"redux.sync.or.b32", {Collective::kReduceOr, "dvm"}},
            {"redux.sync.xor.b32", {Collective::kReduceXor, "dvm"}},
        };
        static const std::map<std::string, Collective> kShuffles = {
            {"up", Collective::kShuffleUp}, {"down", Collective::kShuffleDown}, {"bfly", Collective::kShuffleBfly},
            {"idx", Collective::kShuffleIdx}};
        i.is_signed = opcode.find(".s32") != std::string::npos;
        const std::vector<std::string> parts = split(opcode);
        if (parts[0] == "shfl") {  // d|p, a, b, c, mask
            i.collective = kShuffles.at(parts[2]);
            step(i, Step::kWarpCollective, CountClass::kCollective);
            const bool pair = at(0).kind == Operand::Kind::kList;
            i.to = place(pair ? at(0).list[0] : at(0), RegisterClass::kWord);
            if (pair) i.to_predicate = predicate(at(0).list[1]);
            for (size_t n = 0; n < 4; ++n) i.from[n] = place(at(n + 1), RegisterClass::kWord);
            return;
        }
        const auto found = kForms.find(opcode);
        if (found == kForms.end()) fail("a collective that the machine does not know");
        i.collective = found->second.kind;
        const bool block = i.collective >= Collective::kSyncBlock;
        const bool barrier = block || i.collective == Collective::kSyncWarp;
        step(i, block ? Step::kBlockBarrier : Step::kWarpCollective,
             barrier ? CountClass::kBarrier : CountClass::kCollective);
        const std::string form = found->second.operands;
        if (statement_->operands.size() != form.size()) fail("another number of operands");
        for (size_t n = 0; n < form.size(); ++n) collective_operand(i, form[n], at(n));
    }

    // from[0]: the value, from[1]: the predicate, from[3]: the mask.
    void collective_operand(Instruction& i, char form, const Operand& operand) {
        switch (form) {
            case 'd': i.to = place(operand, RegisterClass::kWord); break;
            case 'D': i.to_predicate = predicate(operand); break;
            case 'v': i.from[0] = place(operand, RegisterClass::kWord); break;
            case 'l':
                i.from[0] = place(operand, RegisterClass::kLong);
                i.wide_address = true;
                break;
            case 'p':
                if (operand.kind == Operand::Kind::kNumber) {
                    i.displacement = operand.number != 0;
                } else {
                    i.from[1] = predicate(operand);
                    i.predicate_negated = operand.negated;
                }
                break;
            case 'm': i.from[3] = place(operand, RegisterClass::kWord); break;
            default:
                if (operand.kind != Operand::Kind::kNumber || operand.number != 0)
                    fail("another barrier than number 0");
        }
    }

    const Program& program_;
    const Function& function_;
    const Statement* statement_ = nullptr;
    Kernel kernel_;
    std::vector<uint32_t> slots_[3];
};

}  // namespace

Kernel decode(const Program& program, const Function& function) {
    return Decoder(program, function).run();
}

}  // namespace dumont::ptx
