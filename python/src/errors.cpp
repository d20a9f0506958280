/// Errors of the library as exceptions of the package.
#include "errors.hpp"

#include <nanobind/nanobind.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "keyseek/system_error.hpp"

namespace nb = nanobind;

namespace keyseek::python {
namespace {

/// The subclass of IoError that is Python's own for this error number as well.
const char* class_of(const SystemError& error) {
  switch (error.number()) {
    case ENOENT:
      return "NoSuchFile";
    case EACCES:
    case EPERM:
      return "NotPermitted";
    default:
      return "IoError";
  }
}

const char* class_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::not_finite:
      return "InvalidArgument";
    case ErrorCode::io:
      return "IoError";
    default:
      return "Error";
  }
}

/// What a message quotes from a file, or a path, need not be UTF-8.
nb::object text_of(const char* message) {
  return nb::steal(PyUnicode_DecodeUTF8(message, static_cast<Py_ssize_t>(std::strlen(message)),
                                        "backslashreplace"));
}

void raise_system(const SystemError& error) {
  const nb::object type = nb::module_::import_("keyseek.errors").attr(class_of(error));
  const nb::object exception = type(text_of(error.what()), "io", error.number(),
                                    nb::steal(PyUnicode_DecodeFSDefault(error.path().c_str())));
  PyErr_SetObject(type.ptr(), exception.ptr());
}

void raise(const Error& error) {
  const std::string_view code = to_string(error.code());
  // Looked up when needed: this module is part of the package it imports here.
  const nb::object type = nb::module_::import_("keyseek.errors").attr(class_of(error.code()));
  const nb::object exception = type(text_of(error.what()), nb::str(code.data(), code.size()));
  PyErr_SetObject(type.ptr(), exception.ptr());
}

}  // namespace

void throw_type_error(const std::string& sentence) { throw nb::type_error(sentence.c_str()); }

void translate_errors() {
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const SystemError& error) {
      raise_system(error);
    } catch (const Error& error) {
      raise(error);
    }
  });
}

}  // namespace keyseek::python
