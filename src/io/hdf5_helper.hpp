/// An HDF5 file taken apart by a process of its own, with limits of time and memory. What crashes,
/// hangs or grows there becomes an Error here.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <string>

#include "file/input_file.hpp"
#include "io/hdf5_backend.hpp"
#include "io/hdf5_message.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io::hdf5 {

class Helper final : public Backend {
 public:
  /// `file` must outlive it. Throws Error(io) where the helper cannot be started.
  Helper(const InputFile& file, const Hdf5Access& access);
  ~Helper() override;

  bool has(const std::string& name) override;
  std::vector<std::string> names(const std::string& group) override;
  Facts dataset(const std::string& name, std::size_t rank) override;
  void read(const std::string& name, std::uint64_t plane, std::uint64_t first, std::uint64_t rows,
            Form form, std::span<std::byte> out) override;
  std::optional<std::string> text(const std::string& object, const std::string& attribute) override;
  std::optional<double> number(const std::string& object, const std::string& attribute) override;

 private:
  void start(std::uint64_t memory);
  /// The answer to a question that may take `extra` seconds longer than others.
  Message ask(const Message& question, double extra = 0);
  void receive(char* out, std::size_t size, double seconds);
  [[noreturn]] void fail_ended();
  [[noreturn]] void fail_late(double seconds);
  void end();

  const InputFile& file_;
  Hdf5Access access_;
  int socket_ = -1, memory_ = -1;
  pid_t process_ = -1;
};

}  // namespace keyseek::io::hdf5
