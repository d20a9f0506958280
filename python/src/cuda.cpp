/// A device's part of decode steps: sink and window of a layer's heads.
#include "keyseek/cuda.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"

namespace keyseek::python {
namespace {

using cuda::DecodeSession;
using DeviceArray = nb::ndarray<nb::array_api, nb::device::cuda>;

constexpr const char* kSessionDoc =
    R"(Sink and window of HeadCaches on a CUDA device, attended there while the CPU has the rest.

heads: all KV heads of a layer, of float16 or bfloat16, which step together; they keep all their
tokens, so that another session may take over, or none. device: its number. stream: a cudaStream_t
as a number, on which everything happens in order. queries, key, value, output are arrays on the
device, the same for every step: torch.from_dlpack looks at them without a copy.)";

/// A session, and the number of its device.
struct NumberedSession {
  DecodeSession session;
  int device;
};

int device_of(const Whole& device) {
  const int number = int_of(device, "device");
  if (number < 0) refuse("device is {}, must not be negative", number);
  return number;
}

NumberedSession made_for(const std::vector<HeadCache*>& heads, int number, std::uintptr_t stream) {
  const cuda::SessionShape shape = cuda::session_shape(heads);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): Python has handles as numbers
  auto* const handle = reinterpret_cast<cuda::Stream>(stream);
  NumberedSession made{DecodeSession(cuda::open_device(number), shape, handle), number};
  made.session.load(heads);
  return made;
}

/// Looks at memory of `self` on its device.
DeviceArray array_on_device(nb::handle self, const void* data, std::size_t rows) {
  const auto& made = nb::cast<const NumberedSession&>(self);
  const auto& [session, device] = made;
  const bool half = session.shape().dtype == Dtype::f16;
  const auto code = half ? nb::dlpack::dtype_code::Float : nb::dlpack::dtype_code::Bfloat;
  return DeviceArray(const_cast<void*>(data), {rows, session.shape().dim}, self, {},
                     {static_cast<std::uint8_t>(code), 16, 1}, nb::device::cuda::value, device);
}

Dtype dtype_named(const std::string& name) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16, Dtype::f32})
    if (name == to_string(dtype)) return dtype;
  refuse("dtype is '{}', must be f16 or bf16", name);
}

void bind_arrays(nb::class_<NumberedSession>& type) {
  type.def_prop_ro(
          "queries",
          [](nb::handle self) {
            const DecodeSession& session = nb::cast<const NumberedSession&>(self).session;
            return array_on_device(self, session.inputs().queries, session.shape().queries());
          },
          "[heads * group, d]")
      .def_prop_ro(
          "key",
          [](nb::handle self) {
            const DecodeSession& session = nb::cast<const NumberedSession&>(self).session;
            return array_on_device(self, session.inputs().key, session.shape().heads);
          },
          "[heads, d]")
      .def_prop_ro(
          "value",
          [](nb::handle self) {
            const DecodeSession& session = nb::cast<const NumberedSession&>(self).session;
            return array_on_device(self, session.inputs().value, session.shape().heads);
          },
          "[heads, d]")
      .def_prop_ro(
          "output",
          [](nb::handle self) {
            const DecodeSession& session = nb::cast<const NumberedSession&>(self).session;
            return array_on_device(self, session.output(), session.shape().queries());
          },
          "[heads * group, d]");
}

}  // namespace

void bind_cuda(nb::module_& m) {
  nb::class_<NumberedSession> type(m, "DecodeSession", kSessionDoc);
  bind_arrays(type);
  type.def(
          "__init__",
          [](NumberedSession* self, const std::vector<HeadCache*>& heads, const Whole& device,
             const Whole& stream) {
            const int number = device_of(device);
            const std::size_t handle = count_of(stream, "stream");
            const GilReleased released;
            new (self) NumberedSession(made_for(heads, number, handle));
          },
          nb::arg("heads"), nb::arg("device") = 0, nb::arg("stream") = 0)
      .def_static(
          "check",
          [](const Whole& dim, const std::string& dtype, const Whole& device) {
            const cuda::SessionShape shape{
                .heads = 1, .dim = count_of(dim, "dim"), .dtype = dtype_named(dtype), .scale = 1};
            shape.validate();
            static_cast<void>(cuda::open_device(device_of(device)));
          },
          nb::arg("dim"), nb::arg("dtype"), nb::arg("device") = 0,
          "Raises what keeps heads of this dimension and type ('f16', 'bf16') from the device.")
      .def(
          "load",
          [](NumberedSession& self, const std::vector<HeadCache*>& heads) {
            self.session.load(heads);
          },
          nb::arg("heads"), nb::call_guard<GilReleased>(),
          "Sink and window of other heads of the same shape, in place of those before.")
      .def(
          "step",
          [](NumberedSession& self, const std::vector<HeadCache*>& heads, DecodePool& pool) {
            self.session.step(heads, pool);
          },
          nb::arg("heads"), nb::arg("pool"), nb::call_guard<GilReleased>(),
          "Appends the token in `key` and `value`, and leaves in `output` the attention of "
          "`queries`\n"
          "over all tokens, once the stream comes there. Returns when the CPU has done its part.");
}

}  // namespace keyseek::python
