// The kernels that the library and `emulator_run` know: the sources that NVRTC compiles, and their names.
//
// A source that is compiled in several ways, with -D, needs a file like this one for each: the names would collide.
#include "copy_stored.cu"
#include "lz4_frame.cu"
#include "zipnn_decode.cu"
#include "zipnn_encode.cu"

DUMONT_EMULATE(copy_stored);
DUMONT_EMULATE(lz4_layout);
DUMONT_EMULATE(lz4_write);
DUMONT_EMULATE(zipnn_decode);
DUMONT_EMULATE(zipnn_join);
DUMONT_EMULATE(zipnn_layout);
DUMONT_EMULATE(zipnn_plan);
DUMONT_EMULATE(zipnn_write);
