// The arrays of an FFI call, taken in order and checked against the shapes they must have.
#pragma once

#include <initializer_list>
#include <string>

#include "xla/ffi/api/ffi.h"

namespace jaxlstm {

// Takes a call's arguments, then its results. What is wrong with the first bad one is in error().
class Arguments {
 public:
  using Shape = std::initializer_list<int64_t>;

  Arguments(const xla::ffi::RemainingArgs& args, const xla::ffi::RemainingRets& rets)
      : args_(args), rets_(rets) {}

  const float* floats(const char* name, Shape shape) {
    return static_cast<const float*>(argument(name, xla::ffi::F32, shape, false));
  }
  // Null for an array whose first axis is empty.
  const float* floats_or_none(const char* name, Shape shape) {
    return static_cast<const float*>(argument(name, xla::ffi::F32, shape, true));
  }
  const bool* flags_or_none(const char* name, Shape shape) {
    return static_cast<const bool*>(argument(name, xla::ffi::PRED, shape, true));
  }
  float* result(const char* name, Shape shape) { return of_results(name, shape, false); }
  float* result_or_none(const char* name, Shape shape) { return of_results(name, shape, true); }

  // An axis of an argument that is not taken yet; zero if there is none.
  int64_t axis(std::size_t argument, std::size_t axis);

  // To be called last: whether all was as expected, and nothing was left over.
  xla::ffi::Error error();

 private:
  void* argument(const char* name, xla::ffi::DataType type, Shape shape, bool or_none);
  float* of_results(const char* name, Shape shape, bool or_none);
  void* check(const char* name, const xla::ffi::AnyBuffer& buffer, xla::ffi::DataType type,
              Shape shape, bool or_none);
  void complain(std::string message);

  const xla::ffi::RemainingArgs& args_;
  const xla::ffi::RemainingRets& rets_;
  std::size_t next_arg_ = 0, next_ret_ = 0;
  std::string message_;
};

}  // namespace jaxlstm
