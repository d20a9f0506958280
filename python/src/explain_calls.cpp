/// Calls that fit no signature are explained. nanobind has no hook for them, so the functions that
/// it calls its functions by (PEP 590) are put behind ours, which look at what failed. What
/// succeeds costs one comparison more.
#include <array>
#include <cstddef>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "errors.hpp"

namespace keyseek::python {
namespace {

using Call = PyObject* (*)(PyObject*, PyObject* const*, std::size_t, PyObject*);

/// nanobind has a few ways to call: with and without named arguments, and so on.
constexpr std::size_t kMostWays = 8;
// Filled once, while the module is imported.
std::array<Call, kMostWays> ways_of_nanobind{};

void replace_error(PyObject* const* args, std::size_t count, PyObject* names) {
  nb::python_error error;  // takes it from the interpreter
  const std::string text = nb::str(error.value()).c_str();
  if (text.find("incompatible function arguments") == std::string::npos) {
    error.restore();
    return;
  }
  // By Python's own calls: nanobind would look into an object whose constructor has not run.
  const Py_ssize_t positional = PyVectorcall_NARGS(count);
  const nb::object given = nb::steal(PyTuple_New(positional));
  for (Py_ssize_t i = 0; i < positional; ++i) {
    PyTuple_SetItem(given.ptr(), i, nb::handle(args[i]).inc_ref().ptr());
  }
  const nb::object named = nb::steal(PyDict_New());
  const Py_ssize_t by_name = names == nullptr ? 0 : PyTuple_Size(names);
  for (Py_ssize_t i = 0; i < by_name; ++i) {
    PyDict_SetItem(named.ptr(), PyTuple_GetItem(names, i), args[positional + i]);
  }
  const nb::object explain_it = nb::module_::import_("keyseek.signatures").attr("explain");
  const nb::object sentence = nb::steal(
      PyObject_CallFunction(explain_it.ptr(), "sOO", text.c_str(), given.ptr(), named.ptr()));
  if (!sentence.is_valid()) nb::raise_python_error();
  PyErr_SetObject(PyExc_TypeError, sentence.ptr());
}

template <std::size_t way>
PyObject* explained(PyObject* function, PyObject* const* args, std::size_t count, PyObject* names) {
  PyObject* const result = ways_of_nanobind[way](function, args, count, names);
  if (result != nullptr || PyErr_ExceptionMatches(PyExc_TypeError) == 0) return result;
  try {
    replace_error(args, count, names);
  } catch (nb::python_error& e) {
    e.restore();
  } catch (const std::exception& e) {
    PyErr_SetString(PyExc_TypeError, e.what());
  }
  return nullptr;
}

template <std::size_t... way>
constexpr std::array<Call, kMostWays> explained_ways(std::index_sequence<way...>) {
  return {&explained<way>...};
}

void explain(nb::handle function) {
  constexpr auto kOurs = explained_ways(std::make_index_sequence<kMostWays>());
  const Py_ssize_t offset =
      function.type().is_valid()
          ? reinterpret_cast<PyTypeObject*>(function.type().ptr())->tp_vectorcall_offset
          : 0;
  if (offset <= 0) return;
  Call& call = *reinterpret_cast<Call*>(reinterpret_cast<char*>(function.ptr()) + offset);
  for (std::size_t i = 0; i < kMostWays; ++i) {
    if (call == kOurs[i]) return;
    if (ways_of_nanobind[i] != nullptr && ways_of_nanobind[i] != call) continue;
    ways_of_nanobind[i] = call;
    call = kOurs[i];
    return;
  }
}

bool is_function(nb::handle object) {
  const std::string_view name = reinterpret_cast<PyTypeObject*>(object.type().ptr())->tp_name;
  return name == "nanobind.nb_func" || name == "nanobind.nb_method" || name == "nb_func" ||
         name == "nb_method";
}

}  // namespace

void explain_calls(nb::module_& m) {
  for (const auto& [name, object] : nb::borrow<nb::dict>(m.attr("__dict__"))) {
    if (is_function(object)) explain(object);
    if (!nb::isinstance<nb::type_object>(object)) continue;
    const auto members = nb::borrow<nb::dict>(object.attr("__dict__").attr("copy")());
    for (const auto& [member, item] : members) {
      // A constructor has no object yet that could be handed on.
      const bool constructor = std::string_view(nb::str(member).c_str()) == "__init__";
      if (!constructor && is_function(item)) explain(item);
    }
  }
}

}  // namespace keyseek::python
