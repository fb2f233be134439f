// The kernel table of one instruction set.
#include "path.h"

#define DUMONT_QUOTE_(name) #name
#define DUMONT_QUOTE(name) DUMONT_QUOTE_(name)

namespace dumont {
namespace DUMONT_PATH {

const Kernels kernels = {
    DUMONT_QUOTE(DUMONT_PATH), decode_huff0, encode_streams, count_bytes, join_planes, split_planes,
    compress_blake3,
};

}  // namespace DUMONT_PATH
}  // namespace dumont
