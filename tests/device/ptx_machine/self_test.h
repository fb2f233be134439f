// How the self test's kernels lay out their results: for the kernels, and for the program that reads them.
#pragma once

#include "portable.h"

constexpr uint32_t kIntegerResults = 24;
constexpr uint32_t kVectorBytes = 64;
constexpr uint32_t kShuffleResults = 12;
constexpr uint32_t kVoteResults = 7;
constexpr uint32_t kReduceResults = 8;
constexpr uint32_t kMaskResults = 4;
constexpr uint32_t kInstructionResults = 17;
