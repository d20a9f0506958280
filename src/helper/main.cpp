/// keyseek-hdf5: takes HDF5 files apart for another process, see Hdf5Access in keyseek/io.hpp.
#include <cstdio>

#include "keyseek/io.hpp"

int main(int argc, char** argv) {
  const int code = keyseek::io::serve_hdf5(argc, argv);
  if (code != 0) std::fputs("keyseek-hdf5: started by the library keyseek, not by hand\n", stderr);
  return code;
}
