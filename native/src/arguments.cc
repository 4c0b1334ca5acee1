#include "arguments.h"

#include <sstream>
#include <utility>

namespace jaxlstm {
namespace {

namespace ffi = xla::ffi;

template <class Axes>
std::string words(ffi::DataType type, const Axes& axes) {
  std::ostringstream out;
  if (type == ffi::F32) {
    out << "float32";
  } else if (type == ffi::PRED) {
    out << "bool";
  } else {
    out << "dtype " << static_cast<int>(type);
  }
  out << " (";
  const char* comma = "";
  for (int64_t axis : axes) {
    out << comma << axis;
    comma = ", ";
  }
  out << ")";
  return out.str();
}

}  // namespace

int64_t Arguments::axis(std::size_t argument, std::size_t axis) {
  auto buffer = args_.get<ffi::AnyBuffer>(argument);
  if (!buffer.has_value() || axis >= buffer->dimensions().size()) return 0;
  return buffer->dimensions()[axis];
}

void* Arguments::argument(const char* name, ffi::DataType type, Shape shape, bool or_none) {
  auto buffer = args_.get<ffi::AnyBuffer>(next_arg_++);
  if (buffer.has_value()) return check(name, *buffer, type, shape, or_none);
  complain(std::string(name) + ": the argument is missing");
  return nullptr;
}

float* Arguments::of_results(const char* name, Shape shape, bool or_none) {
  auto buffer = rets_.get<ffi::AnyBuffer>(next_ret_++);
  if (buffer.has_value()) {
    return static_cast<float*>(check(name, **buffer, ffi::F32, shape, or_none));
  }
  complain(std::string(name) + ": the result is missing");
  return nullptr;
}

void* Arguments::check(const char* name, const ffi::AnyBuffer& buffer, ffi::DataType type,
                       Shape shape, bool or_none) {
  const auto axes = buffer.dimensions();
  bool fits = buffer.element_type() == type && axes.size() == shape.size();
  const bool none = fits && or_none && axes[0] == 0;
  for (std::size_t i = none ? 1 : 0; fits && i < axes.size(); ++i) {
    fits = axes[i] == shape.begin()[i];
  }
  if (!fits) {
    complain(std::string(name) + ": expected " + words(type, shape) +
             (or_none ? " or 0 for the first" : "") + ", got " +
             words(buffer.element_type(), axes));
  }
  return none || !fits ? nullptr : buffer.untyped_data();
}

void Arguments::complain(std::string message) {
  if (message_.empty()) message_ = std::move(message);
}

ffi::Error Arguments::error() {
  if (next_arg_ != args_.size() || next_ret_ != rets_.size()) {
    complain("expected " + std::to_string(next_arg_) + " arguments and " +
             std::to_string(next_ret_) + " results, got " + std::to_string(args_.size()) +
             " and " + std::to_string(rets_.size()));
  }
  return message_.empty() ? ffi::Error::Success() : ffi::Error::InvalidArgument(message_);
}

}  // namespace jaxlstm
