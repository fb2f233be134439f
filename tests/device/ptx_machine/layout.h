// The order in which a function's basic blocks are laid out, so that lanes with the smallest address are those that are
// behind.
//
// Lanes that took different ways meet again where the ways meet if the lanes with the smallest address go first. That
// needs every block before those that it leads to, but for the way back to the head of a loop, and a loop's blocks
// before what follows the loop. The compiler's text does not keep to that; this order does.
#pragma once

#include <cstddef>
#include <vector>

#include "program.h"

namespace dumont::ptx {

struct Block {
    size_t begin, end;   // statements
    bool jumps = false;  // needs a jump to statement `end`, as another block follows
};

std::vector<Block> lay_out(const Function& function);

}  // namespace dumont::ptx
