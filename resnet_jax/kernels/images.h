// What kernels of images share: shapes, a border of zeros, and how XLA calls convolutions.

#pragma once

#include <vector>

#include "common.h"

namespace {

constexpr int VECTORS = BLOCK / LANES;  // that hold a block of features

// A tensor's last three sizes.
struct Shape {
  int64_t height, width, channels;
  int64_t size() const { return height * width * channels; }
};

// Zeros around an image.
struct Border {
  int64_t top, bottom, left, right;
  bool none() const { return !(top || bottom || left || right); }
  Shape around(Shape s) const { return {s.height + top + bottom, s.width + left + right, s.channels}; }
};

// The images with their borders, in memory of this thread's own; the images themselves where there is none.
inline const float* bordered(const float* images, int64_t count, Shape shape, Border border) {
  if (border.none()) return images;
  thread_local Floats scratch;
  const Shape wide = border.around(shape);
  const int64_t row = shape.width * shape.channels, left = border.left * shape.channels;
  scratch.hold(count * wide.size());
  for (int64_t b = 0; b < count; ++b)
    for (int64_t y = 0; y < wide.height; ++y) {
      float* to = scratch.data() + b * wide.size() + y * wide.width * shape.channels;
      float* end = to + wide.width * shape.channels;
      const int64_t from = y - border.top;
      if (from < 0 || from >= shape.height) {
        std::fill(to, end, 0.0f);
        continue;
      }
      std::fill(to, to + left, 0.0f);
      std::copy_n(images + b * shape.size() + from * row, row, to + left);
      std::fill(to + left + row, end, 0.0f);
    }
  return scratch.data();
}

// How many images of so many floats half of a second-level cache holds, at least one and at most `most`.
inline int64_t images_at_once(int64_t size, int64_t most) {
  return std::max<int64_t>(1, std::min(most, 65536 / std::max<int64_t>(1, size)));
}

// Calls F<n>(...) for n known at run time, 1 <= n <= N.
template <template <int> class F, int N, typename... Args>
inline void with_count(int64_t n, Args... args) {
  if constexpr (N > 0) {
    if (n == N) return F<N>::run(args...);
    with_count<F, N - 1>(n, args...);
  }
}

using Input = ffi::Buffer<ffi::F32, 4>;
using Output = ffi::ResultBuffer<ffi::F32, 4>;

template <typename B>
Shape shape_of(const B& buffer) {
  auto d = buffer.dimensions();
  return {d[1], d[2], d[3]};
}

// Of a handler, whose arguments are two tensors and the sides of a window; it gives one tensor.
inline auto window_binding() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Input>()
      .Arg<Input>()
      .Ret<Input>()
      .Attr<int64_t>("stride_y")
      .Attr<int64_t>("stride_x")
      .Attr<int64_t>("top")
      .Attr<int64_t>("bottom")
      .Attr<int64_t>("left")
      .Attr<int64_t>("right");
}

}  // namespace
