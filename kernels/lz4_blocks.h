// What a device copies because an LZ4 frame stores it as it is.
#pragma once

#include "portable.h"

namespace dumont {

struct StoredCopy {
    uint64_t from;  // address
    uint64_t to;    // address; a multiple of 16
    uint64_t size;
};
static_assert(sizeof(StoredCopy) == 24, "native.py gives this much room for each copy");

}  // namespace dumont
