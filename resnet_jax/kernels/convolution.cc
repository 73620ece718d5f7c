// Convolutions of float32 batches on a CPU, for XLA's FFI: the layer, and the gradients of its images and its kernel.
//
// Layouts are (batch, height, width, channels) and (rows, columns, channels, features). The innermost loop holds the sums
// of some positions and one or two blocks of features in registers: a position's channel, broadcast, times the features
// of the kernel. Images are copied with a border of zeros first, a few at a time, so that the loop knows no edges and its
// images stay in cache.
//
// Sums are taken in an order that depends on shapes alone, never on the number of threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// Lanes of a vector; blocks of features of a wide tile, and its positions; positions of a tile of one block; channels of
// a kernel's gradient at once. Sums must be enough to hide the latency of adding to one, and fit into the registers.
#if defined(__AVX512F__)
constexpr int LANES = 16, WIDE = 2, WIDE_POSITIONS = 8, POSITIONS = 13, CHANNELS = 16;
#elif defined(__AVX__)
constexpr int LANES = 8, WIDE = 1, WIDE_POSITIONS = 6, POSITIONS = 6, CHANNELS = 6;
#else
constexpr int LANES = 4, WIDE = 1, WIDE_POSITIONS = 4, POSITIONS = 4, CHANNELS = 4;
#endif
constexpr int BLOCK = 16;  // features in registers at once
constexpr int VECTORS = BLOCK / LANES;

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Vector*>(to) = value; }

// Calls work(0) ... work(count - 1) on the pool's threads and on this one, and returns when all are done. This thread
// takes part, so that a pool whose threads all wait here cannot lock up.
void parallel(ffi::ThreadPool& pool, int64_t count, const std::function<void(int64_t)>& work) {
  struct Shared {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  auto shared = std::make_shared<Shared>();
  auto take = [shared, count, &work] {  // `work` is there as long as a number below `count` is left
    for (int64_t i; (i = shared->next.fetch_add(1)) < count;) {
      work(i);
      if (shared->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(shared->mutex);
        shared->finished.notify_all();
      }
    }
  };
  for (int64_t i = 1; i < std::min(count, pool.num_threads()); ++i) pool.Schedule(std::function<void()>(take));
  take();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->finished.wait(lock, [&] { return shared->done == count; });
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

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
const float* bordered(const float* images, int64_t count, Shape shape, Border border) {
  if (border.none()) return images;
  thread_local std::vector<float> scratch;
  const Shape wide = border.around(shape);
  const int64_t row = shape.width * shape.channels, left = border.left * shape.channels;
  if (static_cast<int64_t>(scratch.size()) < count * wide.size()) scratch.resize(count * wide.size());
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
int64_t images_at_once(int64_t size, int64_t most) {
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

// ------------------------------------------------------------------------------- the layer and its images' gradient

// Output positions that see the same taps of the kernel: all of them, or in the gradient of a strided layer those of
// one phase.
struct Phase {
  int64_t rows, columns;           // how many output positions an image has
  int64_t in_row, in_column;       // floats from the input of one to the next one's
  int64_t out_start;               // of the first one
  int64_t out_row, out_column;     // from one to the next
  std::vector<int64_t> offsets;    // of each tap, from a position's input
  std::vector<int64_t> weights;    // of each tap, in a packed block of the kernel
  std::vector<int64_t> from, to;   // of every position of some images: where its input and its output begin
};

// What a tile is computed from, and where its outputs go.
struct Operands {
  const Phase& phase;
  const float* in;
  const int64_t *from, *to;  // of its positions
  int64_t channels;
  const float* kernel;   // the first block of its features
  int64_t packed_block;  // floats from one block to the next
  float* out;
};

// N positions of B blocks of features.
template <int N, int B>
struct Tile {
  static void run(const Operands& a) {
    constexpr int VECTORS = B * (BLOCK / LANES);
    const int64_t channels = a.channels, packed_block = a.packed_block;
    Vector sums[N][VECTORS] = {};
    for (size_t tap = 0; tap < a.phase.offsets.size(); ++tap) {
      const float* w = a.kernel + a.phase.weights[tap];
      const float* x[N];
      for (int n = 0; n < N; ++n) x[n] = a.in + a.from[n] + a.phase.offsets[tap];
      for (int64_t c = 0; c < channels; ++c, w += BLOCK) {
        Vector weights[VECTORS];
#pragma GCC unroll 16
        for (int v = 0; v < VECTORS; ++v) weights[v] = load(w + v * LANES / BLOCK * packed_block + v * LANES % BLOCK);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
          for (int v = 0; v < VECTORS; ++v) sums[n][v] += x[n][c] * weights[v];
        }
      }
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
#pragma GCC unroll 16
      for (int v = 0; v < VECTORS; ++v) store(a.out + a.to[n] + v * LANES, sums[n][v]);
    }
  }
};

template <int N>
using OneTile = Tile<N, 1>;
template <int N>
using WideTile = Tile<N, WIDE>;

// Every output of `phases` from a batch of images and a kernel packed as (blocks of features, taps, channels, BLOCK).
void apply(ffi::ThreadPool& pool, const float* images, int64_t batch, Shape in, Border border, const float* packed,
           int64_t packed_block, std::vector<Phase> phases, float* outputs, Shape out) {
  const Shape wide = border.around(in);
  // As many images at once as a second-level cache holds, so that a block of a large kernel is read once for them.
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());  // 0 where XLA does not tell
  const int64_t group = images_at_once(wide.size(), ceil_div(batch, 4 * threads));
  // Small images fill tiles together.
  const int64_t together = std::min(group, ceil_div(64, out.height * out.width));
  for (Phase& phase : phases)
    for (int64_t b = 0; b < together; ++b)
      for (int64_t y = 0; y < phase.rows; ++y)
        for (int64_t x = 0; x < phase.columns; ++x) {
          phase.from.push_back(b * wide.size() + y * phase.in_row + x * phase.in_column);
          phase.to.push_back(b * out.size() + phase.out_start + y * phase.out_row + x * phase.out_column);
        }
  parallel(pool, ceil_div(batch, group), [&](int64_t number) {
    const int64_t begin = number * group, end = std::min(begin + group, batch);
    const float* inputs = bordered(images + begin * in.size(), end - begin, in, border);
    const int64_t blocks = out.channels / BLOCK;
    for (int64_t block = 0, wide_tile; block < blocks; block += wide_tile ? WIDE : 1) {
      wide_tile = block + WIDE <= blocks;
      for (int64_t b = begin; b < end; b += together) {
        for (const Phase& phase : phases) {
          const int64_t positions = std::min(together, end - b) * phase.rows * phase.columns;
          const int64_t tiles = ceil_div(positions, wide_tile ? WIDE_POSITIONS : POSITIONS);
          for (int64_t i = 0, p = 0; i < tiles; ++i) {  // of nearly equal size: a tile of one would be slow
            const int64_t count = positions / tiles + (i < positions % tiles);
            const Operands tile{phase, inputs + (b - begin) * wide.size(), &phase.from[p], &phase.to[p], in.channels,
                                packed + block * packed_block, packed_block, outputs + b * out.size() + block * BLOCK};
            if (wide_tile) with_count<WideTile, WIDE_POSITIONS>(count, tile);
            else with_count<OneTile, POSITIONS>(count, tile);
            p += count;
          }
        }
      }
    }
  });
}

using Input = ffi::Buffer<ffi::F32, 4>;
using Output = ffi::ResultBuffer<ffi::F32, 4>;

template <typename B>
Shape shape_of(const B& buffer) {
  auto d = buffer.dimensions();
  return {d[1], d[2], d[3]};
}

ffi::Error layer(ffi::ThreadPool pool, Input images, Input kernel, Output outputs, int64_t stride_y, int64_t stride_x,
                 int64_t top, int64_t bottom, int64_t left, int64_t right) {
  const Shape in = shape_of(images), out = shape_of(*outputs);
  const int64_t rows = kernel.dimensions()[0], columns = kernel.dimensions()[1], taps = rows * columns;
  const Border border{top, bottom, left, right};
  const Shape wide = border.around(in);
  const int64_t block_size = taps * in.channels * BLOCK;
  std::vector<float> packed(taps * in.channels * out.channels);
  const float* weights = kernel.typed_data();
  parallel(pool, out.channels / BLOCK, [&](int64_t block) {
    for (int64_t i = 0; i < taps * in.channels; ++i)
      std::memcpy(&packed[block * block_size + i * BLOCK], weights + i * out.channels + block * BLOCK,
                  sizeof(float) * BLOCK);
  });
  Phase phase{out.height, out.width, stride_y * wide.width * in.channels, stride_x * in.channels,
              0, out.width * out.channels, out.channels, {}, {}, {}, {}};
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      phase.offsets.push_back((i * wide.width + j) * in.channels);
      phase.weights.push_back((i * columns + j) * in.channels * BLOCK);
    }
  apply(pool, images.typed_data(), images.dimensions()[0], in, border, packed.data(), block_size, {phase},
        outputs->typed_data(), out);
  return ffi::Error::Success();
}

ffi::Error images_gradient(ffi::ThreadPool pool, Input cotangent, Input kernel, Output gradient, int64_t stride_y,
                           int64_t stride_x, int64_t top, int64_t bottom, int64_t left, int64_t right) {
  const Shape in = shape_of(cotangent), out = shape_of(*gradient);  // "in" and "out" of this computation
  const int64_t rows = kernel.dimensions()[0], columns = kernel.dimensions()[1], taps = rows * columns;
  const int64_t block_size = taps * in.channels * BLOCK;
  std::vector<float> packed(taps * in.channels * out.channels);
  const float* weights = kernel.typed_data();
  parallel(pool, out.channels / BLOCK, [&](int64_t block) {
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t c = 0; c < BLOCK; ++c) {
        const float* from = weights + (tap * out.channels + block * BLOCK + c) * in.channels;
        for (int64_t f = 0; f < in.channels; ++f) packed[block * block_size + (tap * in.channels + f) * BLOCK + c] = from[f];
      }
  });
  // Pixel y is seen by output (y + top - i) / stride through row i of the kernel, where that is whole. The border makes
  // room for every such output, whether it is there or not.
  auto low = [](int64_t pad, int64_t size, int64_t stride) { return std::max<int64_t>(0, ceil_div(size - 1 - pad, stride)); };
  const int64_t low_y = low(top, rows, stride_y), low_x = low(left, columns, stride_x);
  const int64_t high_y = std::max<int64_t>(0, (out.height - 1 + top) / stride_y - (in.height - 1));
  const int64_t high_x = std::max<int64_t>(0, (out.width - 1 + left) / stride_x - (in.width - 1));
  const Border border{low_y, high_y, low_x, high_x};
  const Shape wide = border.around(in);
  std::vector<Phase> phases;
  for (int64_t py = 0; py < std::min(stride_y, out.height); ++py)
    for (int64_t px = 0; px < std::min(stride_x, out.width); ++px) {
      Phase phase{ceil_div(out.height - py, stride_y), ceil_div(out.width - px, stride_x),
                  wide.width * in.channels, in.channels, (py * out.width + px) * out.channels,
                  stride_y * out.width * out.channels, stride_x * out.channels, {}, {}, {}, {}};
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) {
          const int64_t y = py + top - i + low_y * stride_y, x = px + left - j + low_x * stride_x;
          if (y % stride_y || x % stride_x) continue;
          phase.offsets.push_back((y / stride_y * wide.width + x / stride_x) * in.channels);
          phase.weights.push_back((i * columns + j) * in.channels * BLOCK);
        }
      phases.push_back(phase);
    }
  apply(pool, cotangent.typed_data(), cotangent.dimensions()[0], in, border, packed.data(), block_size, phases,
        gradient->typed_data(), out);
  return ffi::Error::Success();
}

// ------------------------------------------------------------------------------------------- the kernel's gradient

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

auto binding() {
  return ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Input>().Arg<Input>().Ret<ffi::Buffer<ffi::F32, 4>>();
}

}  // namespace

#define WINDOW                                                                                              \
  Attr<int64_t>("stride_y").Attr<int64_t>("stride_x").Attr<int64_t>("top").Attr<int64_t>("bottom").Attr<int64_t>( \
      "left").Attr<int64_t>("right")

XLA_FFI_DEFINE_HANDLER_SYMBOL(Convolution, layer, binding().WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvolutionImagesGradient, images_gradient, binding().WINDOW);
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvolutionKernelGradient, kernel_gradient, binding().WINDOW);
