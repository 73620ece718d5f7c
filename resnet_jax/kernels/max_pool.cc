// Max-pooling and its gradient, of float32 images on a CPU, for XLA's FFI.
//
// Layout is (batch, height, width, channels). What lies outside an image is smaller than anything in it.

#include <utility>

#include "images.h"

namespace {

struct Window {
  int64_t size, stride, top, left;
};

// Calls visit(output's first float, pixels that its window sees: top, bottom, left, right) for each output of an image.
template <typename Visit>
void for_windows(Shape in, Shape out, Window window, const Visit& visit) {
  for (int64_t y = 0; y < out.height; ++y)
    for (int64_t x = 0; x < out.width; ++x) {
      const int64_t top = y * window.stride - window.top, left = x * window.stride - window.left;
      visit((y * out.width + x) * out.channels, std::max<int64_t>(0, top), std::min(in.height, top + window.size),
            std::max<int64_t>(0, left), std::min(in.width, left + window.size));
    }
}

ffi::Error layer(ffi::ThreadPool pool, Input images, Output outputs, int64_t size, int64_t stride, int64_t top,
                 int64_t left) {
  const Shape in = shape_of(images), out = shape_of(*outputs);
  parallel(pool, images.dimensions()[0], [&](int64_t b) {
    const float* x = images.typed_data() + b * in.size();
    float* y = outputs->typed_data() + b * out.size();
    for_windows(in, out, {size, stride, top, left}, [&](int64_t to, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
      for (int64_t c = 0; c < in.channels; c += LANES) {
        Vector largest = load(x + (y0 * in.width + x0) * in.channels + c);
        for (int64_t i = y0; i < y1; ++i)
          for (int64_t j = x0; j < x1; ++j) {
            const Vector seen = load(x + (i * in.width + j) * in.channels + c);
            largest = (largest >= seen) | (largest != largest) ? largest : seen;  // of NaN, NaN
          }
        store(y + to + c, largest);
      }
    });
  });
  return ffi::Error::Success();
}

// An output's cotangent goes to the first of its window's pixels, row by row, that is as large.
ffi::Error gradient(ffi::ThreadPool pool, Input images, Input outputs, Input cotangent, Output of_images, int64_t size,
                    int64_t stride, int64_t top, int64_t left) {
  const Shape in = shape_of(images), out = shape_of(outputs);
  parallel(pool, images.dimensions()[0], [&](int64_t b) {
    const float* x = images.typed_data() + b * in.size();
    const float *y = outputs.typed_data() + b * out.size(), *g = cotangent.typed_data() + b * out.size();
    float* to = of_images->typed_data() + b * in.size();
    std::fill_n(to, in.size(), 0.0f);
    for_windows(in, out, {size, stride, top, left}, [&](int64_t from, int64_t y0, int64_t y1, int64_t x0, int64_t x1) {
      for (int64_t c = 0; c < in.channels; c += LANES) {
        const Vector largest = load(y + from + c);
        Vector left_over = load(g + from + c);
        for (int64_t i = y0; i < y1; ++i)
          for (int64_t j = x0; j < x1; ++j) {
            const int64_t at = (i * in.width + j) * in.channels + c;
            const auto hit = load(x + at) == largest;
            store(to + at, load(to + at) + (hit ? left_over : Vector{}));
            left_over = hit ? Vector{} : left_over;
          }
      }
    });
  });
  return ffi::Error::Success();
}

// Of a handler, whose attributes are a window.
template <typename Binding>
auto with_window(Binding&& binding) {
  return std::forward<Binding>(binding)
      .template Attr<int64_t>("size")
      .template Attr<int64_t>("stride")
      .template Attr<int64_t>("top")
      .template Attr<int64_t>("left");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(MaxPool, layer,
                              with_window(ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Input>().Ret<Input>()));
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    MaxPoolGradient, gradient,
    with_window(ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Input>().Arg<Input>().Arg<Input>().Ret<Input>()));
