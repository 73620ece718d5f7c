// The gradient of a convolution's kernel on a CPU, for XLA's FFI; see convolution.cc.
//
// The innermost loop holds a tile of the gradient in registers, some channels of one block of features, over many
// positions. The batch is parted, and each part has sums of its own.

#include "images.h"

namespace {

// Channels of a tile.
#if defined(__AVX512F__)
constexpr int CHANNELS = 16;
#elif defined(__AVX__)
constexpr int CHANNELS = 6;
#else
constexpr int CHANNELS = 4;
#endif

// Adds to N channels' rows of a packed kernel's gradient what `images` x `rows` x `columns` positions give.
template <int N>
struct Outer {
  static void run(const float* in, int64_t in_image, int64_t in_row, int64_t in_column, const float* cotangent,
                  int64_t out_image, int64_t out_row, int64_t out_column, int64_t images, int64_t rows,
                  int64_t columns, float* gradient) {
    Vector sums[N][VECTORS];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sums[n][v] = load(gradient + n * BLOCK + v * LANES);
    }
    for (int64_t b = 0; b < images; ++b) {
      for (int64_t y = 0; y < rows; ++y) {
        const float *x = in + b * in_image + y * in_row, *g = cotangent + b * out_image + y * out_row;
        for (int64_t i = 0; i < columns; ++i, x += in_column, g += out_column) {
          Vector seen[VECTORS];
#pragma GCC unroll 16
          for (int v = 0; v < VECTORS; ++v) seen[v] = load(g + v * LANES);
#pragma GCC unroll 16
          for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v) sums[n][v] += x[n] * seen[v];
          }
        }
      }
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) store(gradient + n * BLOCK + v * LANES, sums[n][v]);
    }
  }
};

ffi::Error kernel_gradient(ffi::ThreadPool pool, Input images, Input cotangent, Output gradient, int64_t stride_y,
                           int64_t stride_x, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  const Shape in = shape_of(images), out = shape_of(cotangent);
  const int64_t batch = images.dimensions()[0];
  const int64_t rows = gradient->dimensions()[0], columns = gradient->dimensions()[1];
  const int64_t size = rows * columns * in.channels * out.channels;
  const Border border{top, bottom, left, right};
  const Shape wide = border.around(in);
  // Parts of the batch, each with sums of its own: as many as 64 MiB hold, and as are worth their own sums. Their number
  // follows from shapes alone.
  const int64_t worth = batch * out.height * out.width / 256;
  const int64_t parts = std::max<int64_t>(1, std::min({batch, int64_t{32}, (int64_t{1} << 24) / size, worth}));
  // With few of them, features are shared out as well.
  const int64_t blocks = out.channels / BLOCK, splits = std::min(blocks, ceil_div(32, parts));
  // Rows, and of small images several images, at once: enough positions to be worth loading the sums for, few enough
  // that what one tile of channels sees of them stays in a first-level cache.
  const int64_t positions = 128;
  const int64_t band = std::clamp<int64_t>(positions / out.width, 1, out.height);
  const int64_t together = std::max<int64_t>(1, positions / (out.height * out.width));
  const int64_t tiles = ceil_div(in.channels, CHANNELS);
  const int64_t group = images_at_once(wide.size(), batch) + 3;  // a few in any case, for large kernels
  std::vector<float> sums(parts * size);
  parallel(pool, parts * splits, [&](int64_t number) {
    const int64_t part = number / splits, split = number % splits, end = batch * (part + 1) / parts;
    float* own = sums.data() + part * size;
    for (int64_t begin = batch * part / parts; begin < end; begin += group) {
      const int64_t count = std::min(group, end - begin);
      const float* inputs = bordered(images.typed_data() + begin * in.size(), count, in, border);
      for (int64_t block = blocks * split / splits; block < blocks * (split + 1) / splits; ++block)
        for (int64_t b = 0; b < count; b += together)
          for (int64_t y = 0; y < out.height; y += band)
            for (int64_t i = 0; i < rows; ++i)
              for (int64_t j = 0; j < columns; ++j)
                for (int64_t tile = 0, c = 0; tile < tiles; ++tile) {
                  const int64_t channels = in.channels / tiles + (tile < in.channels % tiles);
                  const float* seen = cotangent.typed_data() + (begin + b) * out.size() + y * out.width * out.channels;
                  with_count<Outer, CHANNELS>(
                      channels, inputs + b * wide.size() + ((y * stride_y + i) * wide.width + j) * in.channels + c,
                      wide.size(), stride_y * wide.width * in.channels, stride_x * in.channels,
                      seen + block * BLOCK, out.size(), out.width * out.channels, out.channels,
                      std::min(together, count - b), std::min(band, out.height - y), out.width,
                      own + ((block * rows * columns + i * columns + j) * in.channels + c) * BLOCK);
                  c += channels;
                }
    }
  });
  const int64_t lines = size / out.channels;  // of a packed block, and of the kernel
  parallel(pool, blocks, [&](int64_t block) {
    for (int64_t line = 0; line < lines; ++line) {
      const float* from = sums.data() + (block * lines + line) * BLOCK;
      Vector total[VECTORS] = {};
      for (int64_t part = 0; part < parts; ++part)
        for (int v = 0; v < VECTORS; ++v) total[v] += load(from + part * size + v * LANES);
      float* to = gradient->typed_data() + line * out.channels + block * BLOCK;
      for (int v = 0; v < VECTORS; ++v) store(to + v * LANES, total[v]);
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvolutionKernelGradient, kernel_gradient, window_binding());
