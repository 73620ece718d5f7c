// Convolutions of float32 batches on a CPU, for XLA's FFI: the layer, and the gradient of its images.
//
// Layouts are (batch, height, width, channels) and (rows, columns, channels, features). The innermost loop holds the sums
// of some positions and one or two blocks of features in registers: a position's channel, broadcast, times the features
// of the kernel. Images are copied with a border of zeros first, a few at a time, so that the loop knows no edges and its
// images stay in cache.

#include <cstring>

#include "images.h"

namespace {

// Blocks of features of a wide tile, and its positions; positions of a tile of one block, and where they slide. Sums must
// be enough to hide the latency of adding to one, and fit into the registers.
#if defined(__AVX512F__)
constexpr int WIDE = 2, WIDE_POSITIONS = 8, POSITIONS = 13, SLIDING = 16;
#elif defined(__AVX__)
constexpr int WIDE = 1, WIDE_POSITIONS = 6, POSITIONS = 6, SLIDING = 0;
#else
constexpr int WIDE = 1, WIDE_POSITIONS = 4, POSITIONS = 4, SLIDING = 0;
#endif
constexpr int WIDE_SLIDING = SLIDING / WIDE;

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
  bool sliding = false;            // see `slides`
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

// N positions of B blocks of features, one beside another, which three taps slide over: what is read of a pixel serves up
// to three of them. Reading each anew, with registers for as many vectors as AVX-512 has, takes longer than the sums.
template <int N, int B>
struct SlidingTile {
  static void run(const Operands& a) {
    constexpr int VECTORS = B * (BLOCK / LANES);
    const int64_t channels = a.channels, packed_block = a.packed_block;
    Vector sums[N][VECTORS] = {};
    for (size_t tap = 0; tap < a.phase.offsets.size(); tap += 3) {
      const float* x = a.in + a.from[0] + a.phase.offsets[tap];
      for (int64_t c = 0; c < channels; ++c, ++x) {
        Vector weights[3][VECTORS];
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) {
          const float* w = a.kernel + a.phase.weights[tap + j] + c * BLOCK;
#pragma GCC unroll 16
          for (int v = 0; v < VECTORS; ++v) weights[j][v] = load(w + v * LANES / BLOCK * packed_block + v * LANES % BLOCK);
        }
        const float* seen = x;
#pragma GCC unroll 32
        for (int n = 0; n < N + 2; ++n, seen += channels) {
#pragma GCC unroll 3
          for (int j = 0; j < 3; ++j) {
            if (n < j || n - j >= N) continue;
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; ++v) sums[n - j][v] += *seen * weights[j][v];
          }
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
template <int N>
using OneSlidingTile = SlidingTile<N, 1>;
template <int N>
using WideSlidingTile = SlidingTile<N, WIDE>;

// Whether taps come in threes, each beside the one before, and so do outputs.
bool slides(const Phase& phase, int64_t channels) {
  const std::vector<int64_t>& at = phase.offsets;
  bool beside = SLIDING && at.size() % 3 == 0 && phase.in_column == channels && phase.columns >= 4;
  for (size_t tap = 0; beside && tap < at.size(); ++tap) beside = tap % 3 == 0 || at[tap] == at[tap - 1] + channels;
  return beside;
}

// Every output of `phases` from a batch of images and a kernel packed as (blocks of features, taps, channels, BLOCK).
void apply(ffi::ThreadPool& pool, const float* images, int64_t batch, Shape in, Border border, const float* packed,
           int64_t packed_block, std::vector<Phase> phases, float* outputs, Shape out) {
  const Shape wide = border.around(in);
  // As many images at once as a second-level cache holds, so that a block of a large kernel is read once for them.
  const int64_t threads = std::max<int64_t>(1, pool.num_threads());  // 0 where XLA does not tell
  const int64_t group = images_at_once(wide.size(), ceil_div(batch, 4 * threads));
  // Small images fill tiles together.
  const int64_t together = std::min(group, ceil_div(64, out.height * out.width));
  for (Phase& phase : phases) {
    phase.sliding = slides(phase, in.channels);
    for (int64_t b = 0; b < together; ++b)
      for (int64_t y = 0; y < phase.rows; ++y)
        for (int64_t x = 0; x < phase.columns; ++x) {
          phase.from.push_back(b * wide.size() + y * phase.in_row + x * phase.in_column);
          phase.to.push_back(b * out.size() + phase.out_start + y * phase.out_row + x * phase.out_column);
        }
  }
  parallel(pool, ceil_div(batch, group), [&](int64_t number) {
    const int64_t begin = number * group, end = std::min(begin + group, batch);
    const float* inputs = bordered(images + begin * in.size(), end - begin, in, border);
    const int64_t blocks = out.channels / BLOCK;
    for (int64_t block = 0, wide_tile; block < blocks; block += wide_tile ? WIDE : 1) {
      wide_tile = block + WIDE <= blocks;
      for (int64_t b = begin; b < end; b += together) {
        for (const Phase& phase : phases) {
          const bool sliding = phase.sliding;
          const int64_t rows = std::min(together, end - b) * phase.rows;
          const int64_t lines = sliding ? rows : 1, positions = rows * phase.columns / lines;
          const int64_t most = sliding ? (wide_tile ? WIDE_SLIDING : SLIDING) : (wide_tile ? WIDE_POSITIONS : POSITIONS);
          const int64_t tiles = ceil_div(positions, most);
          for (int64_t i = 0, p = 0; i < lines * tiles; ++i) {  // of nearly equal size: a tile of one would be slow
            const int64_t count = positions / tiles + (i % tiles < positions % tiles);
            const Operands tile{phase, inputs + (b - begin) * wide.size(), &phase.from[p], &phase.to[p], in.channels,
                                packed + block * packed_block, packed_block, outputs + b * out.size() + block * BLOCK};
            if (sliding && wide_tile) with_count<WideSlidingTile, WIDE_SLIDING>(count, tile);
            else if (sliding) with_count<OneSlidingTile, SLIDING>(count, tile);
            else if (wide_tile) with_count<WideTile, WIDE_POSITIONS>(count, tile);
            else with_count<OneTile, POSITIONS>(count, tile);
            p += count;
          }
        }
      }
    }
  });
}

ffi::Error layer(ffi::ThreadPool pool, Input images, Input kernel, Output outputs, int64_t stride_y, int64_t stride_x,
                 int64_t top, int64_t bottom, int64_t left, int64_t right) {
  const Shape in = shape_of(images), out = shape_of(*outputs);
  const int64_t rows = kernel.dimensions()[0], columns = kernel.dimensions()[1], taps = rows * columns;
  const Border border{top, bottom, left, right};
  const Shape wide = border.around(in);
  const int64_t block_size = taps * in.channels * BLOCK;
  const Floats packed(taps * in.channels * out.channels);
  const float* weights = kernel.typed_data();
  parallel(pool, out.channels / BLOCK, [&](int64_t block) {
    for (int64_t i = 0; i < taps * in.channels; ++i)
      std::memcpy(packed.data() + block * block_size + i * BLOCK, weights + i * out.channels + block * BLOCK,
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
  const Floats packed(taps * in.channels * out.channels);
  const float* weights = kernel.typed_data();
  parallel(pool, out.channels / BLOCK, [&](int64_t block) {
    for (int64_t tap = 0; tap < taps; ++tap)
      for (int64_t c = 0; c < BLOCK; ++c) {
        const float* from = weights + (tap * out.channels + block * BLOCK + c) * in.channels;
        float* to = packed.data() + block * block_size + tap * in.channels * BLOCK + c;
        for (int64_t f = 0; f < in.channels; ++f) to[f * BLOCK] = from[f];
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
        for (int64_t j = columns - 1; j >= 0; --j) {  // from left to right over the cotangent
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

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(Convolution, layer, window_binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(ConvolutionImagesGradient, images_gradient, window_binding());
