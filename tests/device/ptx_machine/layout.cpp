#include "layout.h"

#include <algorithm>
#include <set>

namespace dumont::ptx {
namespace {

constexpr uint32_t kUnseen = ~0u;

bool starts_with(const std::string& text, const char* begin) {
    return text.rfind(begin, 0) == 0;
}

bool leaves(const Statement& statement) {
    return starts_with(statement.opcode, "bra") || statement.opcode == "ret" || statement.opcode == "exit" ||
           statement.opcode == "trap";
}

struct Graph {
    std::vector<Block> blocks;
    std::vector<std::vector<uint32_t>> next;
};

Graph graph_of(const Function& function) {
    const std::vector<Statement>& statements = function.statements;
    std::set<size_t> starts = {0};
    for (const auto& label : function.labels) starts.insert(label.second);
    for (size_t i = 0; i < statements.size(); ++i) {
        if (leaves(statements[i])) starts.insert(i + 1);
    }
    starts.erase(statements.size());
    Graph graph;
    for (auto start = starts.begin(); start != starts.end(); ++start) {
        const auto after = std::next(start);
        graph.blocks.push_back({*start, after == starts.end() ? statements.size() : *after});
    }
    const auto block_at = [&starts](size_t statement) {
        return static_cast<uint32_t>(std::distance(starts.begin(), starts.find(statement)));
    };
    for (const Block& block : graph.blocks) {
        const Statement& last = statements[block.end - 1];
        std::vector<uint32_t> next;
        if (!leaves(last) || last.guarded) next.push_back(block_at(block.end));
        if (starts_with(last.opcode, "bra")) next.push_back(block_at(function.labels.at(last.operands.at(0).name)));
        graph.next.push_back(next);
    }
    return graph;
}

// Strongly connected components by Tarjan's algorithm, without edges to `head`; they come out last first.
class Components {
public:
    Components(const Graph& graph, const std::vector<bool>& inside, uint32_t head)
        : graph_(graph), inside_(inside), head_(head) {
        index_.assign(graph.blocks.size(), kUnseen);
        low_ = index_;
        on_stack_.assign(graph.blocks.size(), false);
        visit(head);
    }
    std::vector<std::vector<uint32_t>> found;

private:
    void visit(uint32_t block) {
        index_[block] = low_[block] = next_index_++;
        stack_.push_back(block);
        on_stack_[block] = true;
        for (const uint32_t next : graph_.next[block]) {
            if (!inside_[next] || next == head_) continue;
            if (index_[next] == kUnseen) {
                visit(next);
                low_[block] = std::min(low_[block], low_[next]);
            } else if (on_stack_[next]) {
                low_[block] = std::min(low_[block], index_[next]);
            }
        }
        if (low_[block] != index_[block]) return;
        found.emplace_back();
        do {
            found.back().push_back(stack_.back());
            on_stack_[stack_.back()] = false;
            stack_.pop_back();
        } while (found.back().back() != block);
    }

    const Graph& graph_;
    const std::vector<bool>& inside_;
    uint32_t head_;
    uint32_t next_index_ = 0;
    std::vector<uint32_t> index_, low_, stack_;
    std::vector<bool> on_stack_;
};

// The last block that a component lists is where it was entered: the head of the loop.
void order(const Graph& graph, const std::vector<uint32_t>& blocks, uint32_t head, std::vector<uint32_t>& out) {
    std::vector<bool> inside(graph.blocks.size(), false);
    for (const uint32_t block : blocks) inside[block] = true;
    Components components(graph, inside, head);
    for (auto component = components.found.rbegin(); component != components.found.rend(); ++component) {
        if (component->size() == 1) {
            out.push_back(component->front());
        } else {
            order(graph, *component, component->back(), out);
        }
    }
}

}  // namespace

std::vector<Block> lay_out(const Function& function) {
    const Graph graph = graph_of(function);
    std::vector<uint32_t> all(graph.blocks.size()), sequence;
    for (uint32_t i = 0; i < all.size(); ++i) all[i] = i;
    order(graph, all, 0, sequence);
    std::vector<Block> blocks;
    for (size_t i = 0; i < sequence.size(); ++i) {
        Block block = graph.blocks[sequence[i]];
        const Statement& last = function.statements[block.end - 1];
        const bool falls = !leaves(last) || last.guarded;
        block.jumps = falls && (i + 1 == sequence.size() || graph.blocks[sequence[i + 1]].begin != block.end);
        blocks.push_back(block);
    }
    return blocks;
}

}  // namespace dumont::ptx
