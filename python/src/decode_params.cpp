/// DecodeParams in Python, made from the library's table of options: whatever is in it has an
/// attribute, a keyword and a line of the docstring.
#include "decode_params.hpp"

#include <fmt/format.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "caller_search.hpp"
#include "errors.hpp"
#include "keyseek/decode_options.hpp"
#include "pickle.hpp"

namespace keyseek::python {
namespace {

constexpr const char* kIndexMeaning =
    R"(a search of one's own instead of our indexes, in the plan or as retriever="custom". Called as
index(keys [n, d] float32) when keys are indexed; returns a function (queries [G, d] float32, k) ->
(ids [G, k], scores [G, k]) with inner products, best first, padded with -1.)";

bool is_none_allowed(const DecodeOption& option) {
  return option.of_given_plan() || option.kind == OptionKind::numbers;
}

[[noreturn]] void refuse_value(const DecodeOption& option, nb::handle value, const char* wanted) {
  const std::string none = is_none_allowed(option) ? " or None" : "";
  refuse_type("{} is {} ({}), must be {}{}", option.name, nb::repr(value).c_str(),
              Py_TYPE(value.ptr())->tp_name, wanted, none);
}

std::size_t count_from(const DecodeOption& option, nb::handle value) {
  return count_of(value, option.name,
                  is_none_allowed(option) ? "a whole number or None" : "a whole number");
}

double number_from(const DecodeOption& option, nb::handle value) {
  if (is_flag(value) || PyNumber_Check(value.ptr()) == 0) refuse_value(option, value, "a number");
  const double number = PyFloat_AsDouble(value.ptr());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    refuse_value(option, value, "a number");
  }
  return number;
}

/// What the library keeps in f32 comes in as float32, what it keeps in f64 as float64.
OptionValue numbers_from(const DecodeOption& option, nb::handle value) {
  const std::string name(option.name);
  const auto array = nb::borrow<Array>(value);
  if (option.name == "frequencies") return copy_doubles(array, name.c_str());
  const std::vector<float> floats = copy_floats(array, name.c_str());
  return std::vector<double>(floats.begin(), floats.end());
}

OptionValue value_from(const DecodeOption& option, nb::handle value) {
  if (value.is_none() && is_none_allowed(option))
    return option.kind == OptionKind::numbers ? OptionValue(std::vector<double>()) : OptionValue();
  switch (option.kind) {
    case OptionKind::flag:
      if (!is_flag(value)) refuse_value(option, value, "True or False");
      return PyObject_IsTrue(value.ptr()) == 1;
    case OptionKind::count:
      return count_from(option, value);
    case OptionKind::number:
      return number_from(option, value);
    case OptionKind::numbers:
      return numbers_from(option, value);
    case OptionKind::word:
      break;
  }
  if (!nb::isinstance<nb::str>(value)) refuse_value(option, value, "text");
  return std::string(nb::str(value).c_str());
}

nb::object to_python(const DecodeOption& option, const OptionValue& value) {
  if (const auto* yes = std::get_if<bool>(&value)) return nb::bool_(*yes);
  if (const auto* n = std::get_if<std::size_t>(&value)) return nb::int_(*n);
  if (const auto* x = std::get_if<double>(&value)) return nb::float_(*x);
  if (const auto* text = std::get_if<std::string>(&value)) return nb::str(text->c_str());
  const auto* all = std::get_if<std::vector<double>>(&value);
  if (all == nullptr || all->empty()) return nb::none();
  if (option.name == "frequencies") return nb::cast(numpy_of(std::vector<double>(*all)));
  return nb::cast(numpy_of(std::vector<float>(all->begin(), all->end())));
}

std::string_view annotation_of(const DecodeOption& option) {
  switch (option.kind) {
    case OptionKind::flag:
      return "bool";
    case OptionKind::count:
      return "int";
    case OptionKind::number:
      return "float";
    case OptionKind::numbers:
      return "numpy.typing.NDArray";
    case OptionKind::word:
      break;
  }
  return "str";
}

std::string typed(const DecodeOption& option) {
  return fmt::format("{}{}", annotation_of(option), is_none_allowed(option) ? " | None" : "");
}

std::string preset(const DecodeOption& option) {
  return nb::repr(to_python(option, option.get(DecodeParams()))).c_str();
}

std::string class_doc() {
  DecodeParams presets;
  presets.given.emplace();
  std::string text =
      "What decoding with retrieval promises, or the plan that is given instead; immutable.\n\n"
      "Given by name, and checked at once but for a scale that is still to come; what nobody would "
      "read is refused, as max_error beside a retriever. Options of a plan that is given are None "
      "without one.\n";
  std::string_view group;
  for (const DecodeOption& option : decode_options()) {
    if (option.group != group) text += fmt::format("\nOf the {}:\n", group = option.group);
    text += fmt::format("{} ({}): {}.\n", option.name, option.allowed(), option.meaning);
  }
  return fmt::format("{}\nindex: {}", text, kIndexMeaning);
}

/// {"plan": ("max_error", ...), ...}.
nb::dict groups() {
  nb::dict all;
  for (const DecodeOption& option : decode_options()) {
    const nb::str group(option.group.data(), option.group.size());
    const nb::object names = all.contains(group) ? nb::object(all[group]) : nb::make_tuple();
    all[group] = names + nb::make_tuple(nb::str(option.name.data(), option.name.size()));
  }
  return all;
}

/// Those that are not as they are by default.
std::string shown(const Options& self) {
  std::string text;
  for (const DecodeOption& option : decode_options()) {
    const std::string value = nb::repr(to_python(option, option.get(self.params))).c_str();
    if (value != preset(option))
      text += fmt::format("{}{}={}", text.empty() ? "" : ", ", option.name, value);
  }
  if (!self.index.is_none())
    text += fmt::format("{}index={}", text.empty() ? "" : ", ", nb::repr(self.index).c_str());
  return fmt::format("DecodeParams({})", text);
}

Options made(Options from, const nb::kwargs& given) {
  from.take(given);
  from.validate();
  return from;
}

Options from_text(const std::string& text) {
  const Options options{.params = decode_params_from(text)};
  options.validate();
  return options;
}

void bind_attributes(nb::class_<Options>& type) {
  for (const DecodeOption& option : decode_options()) {
    const std::string name(option.name),
        signature = fmt::format("def {}(self) -> {}", name, typed(option));
    const DecodeOption* const entry = &option;
    type.def_prop_ro(
        name.c_str(),
        [entry](const Options& self) { return to_python(*entry, entry->get(self.params)); },
        nb::for_getter(nb::sig(signature.c_str())));
  }
  type.def_prop_ro("index", [](const Options& self) { return self.index; });
  type.attr("groups") = groups();
}

}  // namespace

void Options::take(const nb::kwargs& given) {
  for (const auto& [name, value] : given)
    if (std::string_view(nb::str(name).c_str()) != "index")
      (void)decode_option(nb::str(name).c_str());
  // In the order of the table: a retriever before what only a given plan has.
  for (const DecodeOption& option : decode_options()) {
    const nb::str name(option.name.data(), option.name.size());
    if (given.contains(name)) option.set(params, value_from(option, given[name]));
  }
  if (given.contains("index")) take_index(given["index"]);
  // A default that is always there asks for nothing, the same value by name does.
  for (const DecodeOption& option : decode_options()) {
    const nb::str name(option.name.data(), option.name.size());
    if (given.contains(name) && !given[name].is_none()) option.require_read(params);
  }
}

void Options::take_index(const nb::object& function) {
  if (!function.is_none() && PyCallable_Check(function.ptr()) == 0)
    refuse_type("index is {}, must be a function or None", nb::repr(function).c_str());
  index = function;
  params.index =
      function.is_none() ? IndexKeys() : index_keys_of(nb::borrow<nb::callable>(function));
}

void Options::validate() const {
  if (params.scale != 0.0F) return params.validate();
  DecodeParams scaled = params;
  scaled.scale = 1.0F;
  scaled.validate();
}

std::string option_signature() {
  std::string text;
  for (const DecodeOption& option : decode_options())
    text += fmt::format("{}: {} = {}, ", option.name, typed(option), preset(option));
  return text + "index: collections.abc.Callable | None = None";
}

void bind_decode_params(nb::module_& m) {
  nb::class_<Options> type(m, "DecodeParams", class_doc().c_str());
  const std::string options = option_signature();
  type.def(
          "__init__",
          [](Options* self, const nb::kwargs& given) { new (self) Options(made({}, given)); },
          nb::sig(fmt::format("def __init__(self, *, {}) -> None", options).c_str()))
      .def("replace", &made,
           nb::sig(fmt::format("def replace(self, *, {}) -> DecodeParams", options).c_str()),
           "The same with other values for the options that are named.")
      .def(
          "plan_positions",
          [](const Options& self, const Whole& tokens) {
            return self.params.plan_positions(count_of(tokens, "tokens"));
          },
          nb::arg("tokens"),
          "How many of the newest positions of a prompt a plan sees the queries of.")
      .def(
          "to_text", [](const Options& self) { return to_text(self.params); },
          "A line for each option, by name, as in a head's file; Error where index is given.")
      .def_static(
          "from_text", &from_text, nb::arg("text"),
          "What to_text gave. Raises InvalidArgument that names a missing or unknown option.")
      .def("__getstate__", [](const Options& self) { return to_text(self.params); })
      .def("__setstate__",
           [](Options& self, const std::string& text) { new (&self) Options(from_text(text)); })
      .def(
          "__eq__",
          [](const Options& self, const Options& other) {
            const auto without_index = [](DecodeParams params) {
              params.index = nullptr;
              return to_text(params);
            };
            return self.index.is(other.index) &&
                   without_index(self.params) == without_index(other.params);
          },
          nb::is_operator())
      .def("__repr__", &shown);
  copy_by_value(type);
  bind_attributes(type);
}

}  // namespace keyseek::python
