// The gradient of a convolution's kernel on a CPU, for XLA's FFI; see convolution.cc.
//
// The innermost loop holds a tile of the gradient in registers, some channels of one block of features, over many
// positions. Where pixels are large, what it reads of them is copied together first: at their distance, lines of a
// first-level cache would push one another out. The batch is parted, and each part has sums of its own.

#include <limits>

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
                  int64_t out_image, int64_t out_column, int64_t images, int64_t rows, int64_t columns, float* gradient) {
    Vector sums[N][VECTORS];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) sums[n][v] = load(gradient + n * BLOCK + v * LANES);
    }
    for (int64_t b = 0; b < images; ++b) {
      const float* g = cotangent + b * out_image;
      for (int64_t y = 0; y < rows; ++y) {
        const float* x = in + b * in_image + y * in_row;
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

// Floats of a pixel from which on it is large.
constexpr int64_t LARGE = 128;

// Tiles that channels are parted in, of nearly equal size.
struct Tiles {
  int64_t channels, count;
  explicit Tiles(int64_t channels) : channels(channels), count(ceil_div(channels, CHANNELS)) {}
  int64_t begin(int64_t tile) const { return channels / count * tile + std::min(tile, channels % count); }
  int64_t size(int64_t tile) const { return begin(tile + 1) - begin(tile); }
};

// Images with their borders, in memory of this thread's own: (tiles, images, height, width, channels of the tile), where
// pixels are large, else as they are.
const float* tiled(const float* images, int64_t count, Shape shape, Border border, Tiles tiles) {
  const float* from = bordered(images, count, shape, border);
  if (shape.channels < LARGE) return from;
  thread_local Floats scratch;
  const Shape wide = border.around(shape);
  const int64_t positions = count * wide.height * wide.width;
  scratch.hold(count * wide.size());
  for (int64_t tile = 0; tile < tiles.count; ++tile) {
    const int64_t begin = tiles.begin(tile), size = tiles.size(tile);
    float* to = scratch.data() + begin * positions;
    for (int64_t p = 0; p < positions; ++p) std::copy_n(from + p * shape.channels + begin, size, to + p * size);
  }
  return scratch.data();
}

// A block of features of `rows` rows from the y-th of some images, in memory of this thread's own.
const float* block_of(const float* cotangent, int64_t images, Shape shape, int64_t y, int64_t rows, int64_t block) {
  thread_local Floats scratch;
  const int64_t positions = rows * shape.width;
  scratch.hold(images * positions * BLOCK);
  float* to = scratch.data();
  for (int64_t b = 0; b < images; ++b) {
    const float* from = cotangent + b * shape.size() + y * shape.width * shape.channels + block * BLOCK;
    for (int64_t p = 0; p < positions; ++p, from += shape.channels, to += BLOCK) std::copy_n(from, BLOCK, to);
  }
  return scratch.data();
}

ffi::Error kernel_gradient(ffi::ThreadPool pool, Input images, Input cotangent, Output gradient, int64_t stride_y,
                           int64_t stride_x, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  const Shape in = shape_of(images), out = shape_of(cotangent);
  const int64_t batch = images.dimensions()[0];
  const int64_t rows = gradient->dimensions()[0], columns = gradient->dimensions()[1];
  const int64_t size = rows * columns * in.channels * out.channels;
  const Border border{top, bottom, left, right};
  const Shape wide = border.around(in);
  // Parts of the batch, each with sums of its own, and parts of the features, each of which copies its images: 32 in all,
  // or as many as there are, so that less memory is gone through. Their numbers follow from shapes alone.
  const int64_t blocks = out.channels / BLOCK;
  int64_t parts = 1, least = std::numeric_limits<int64_t>::max();
  for (int64_t n = 1; n <= std::min<int64_t>(batch, 32); n *= 2) {
    const int64_t passes = 2 * n * size + std::min(blocks, ceil_div(32, n)) * batch * wide.size();
    const bool busy = n * blocks >= 32 || n * 2 > std::min<int64_t>(batch, 32);
    if (busy && passes < least) parts = n, least = passes;
  }
  const int64_t splits = std::min(blocks, ceil_div(32, parts));
  // Rows, and of small images several images, at once: enough positions to be worth loading the sums for, few enough
  // that what one tile of channels sees of them stays in a first-level cache.
  const int64_t enough = 128, positions = wide.height * wide.width;
  const int64_t band = std::clamp<int64_t>(enough / out.width, 1, out.height);
  const int64_t together = std::max<int64_t>(1, enough / (out.height * out.width));
  const Tiles tiles(in.channels);
  const bool large_in = in.channels >= LARGE, large_out = out.channels >= LARGE;
  const int64_t group = images_at_once(wide.size(), batch) + 3;  // a few in any case, for large kernels
  const int64_t packed_block = size / blocks;
  const Floats sums(parts * size);
  parallel(pool, parts * splits, [&](int64_t number) {
    const int64_t part = number / splits, split = number % splits, end = batch * (part + 1) / parts;
    const int64_t first = blocks * split / splits, last = blocks * (split + 1) / splits;
    float* own = sums.data() + part * size;
    std::fill(own + first * packed_block, own + last * packed_block, 0.0f);
    for (int64_t begin = batch * part / parts; begin < end; begin += group) {
      const int64_t count = std::min(group, end - begin);
      const float* inputs = tiled(images.typed_data() + begin * in.size(), count, in, border, tiles);
      for (int64_t block = first; block < last; ++block)
        for (int64_t b = 0; b < count; b += together)
          for (int64_t y = 0; y < out.height; y += band) {
            const int64_t seen = std::min(together, count - b), height = std::min(band, out.height - y);
            const float* batch_g = cotangent.typed_data() + (begin + b) * out.size();
            const float* g = large_out ? block_of(batch_g, seen, out, y, height, block)
                                       : batch_g + y * out.width * out.channels + block * BLOCK;
            const int64_t out_image = large_out ? height * out.width * BLOCK : out.size();
            const int64_t out_column = large_out ? int64_t{BLOCK} : out.channels;
            for (int64_t tile = 0; tile < tiles.count; ++tile) {
              const int64_t c = tiles.begin(tile), size = tiles.size(tile);
              const int64_t step = large_in ? size : in.channels;
              const float* of_tile = inputs + (large_in ? c * count * positions : c);
              for (int64_t i = 0; i < rows; ++i)
                for (int64_t j = 0; j < columns; ++j) {
                  const float* x = of_tile + (b * positions + (y * stride_y + i) * wide.width + j) * step;
                  with_count<Outer, CHANNELS>(
                      size, x, positions * step, stride_y * wide.width * step, stride_x * step, g, out_image, out_column,
                      seen, height, out.width, own + block * packed_block + ((i * columns + j) * in.channels + c) * BLOCK);
                }
            }
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
