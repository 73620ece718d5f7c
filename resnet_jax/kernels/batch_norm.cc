// Batch normalisation in training (Ioffe and Szegedy 2015), and its gradient, of float32 on a CPU, for XLA's FFI, with the
// ReLU that may follow.
//
// Layout is (groups, positions, channels), where a group's positions share their statistics. Each of the two reads its
// inputs twice: for sums over positions, and for outputs. Nothing else is kept: whether the ReLU let a value pass is
// computed again from the inputs.

#include <cmath>
#include <type_traits>
#include <vector>

#include "common.h"

namespace {

constexpr int64_t WIDTH = 4 * LANES;  // of a strip at most: two sums of each lane hide the latency of adding to one
constexpr int64_t CHUNK = 16384;      // values that a thread takes at once, or more, if they are of few rows:
constexpr int64_t LEAST_ROWS = 64;    // then their sums would be as many as they are themselves

// Values of some channels: `count` times `width` floats that lie together, the first one's channel being `channel`.
struct Strip {
  int64_t start, count, step, channel, width;
};

// Calls visit(vectors, strip) for strips that together are all values of some rows; `vectors`, of a strip's width, is a
// constant. Where there are few channels, several rows make one strip.
template <typename Visit>
void for_strips(int64_t row, int64_t rows, int64_t channels, const Visit& visit) {
  auto call = [&](Strip strip) {
    switch (strip.width / LANES) {
      case 4: return visit(std::integral_constant<int, 4>{}, strip);
      case 2: return visit(std::integral_constant<int, 2>{}, strip);
      default: return visit(std::integral_constant<int, 1>{}, strip);
    }
  };
  if (channels < WIDTH && WIDTH % channels == 0) {
    const int64_t together = WIDTH / channels, full = rows / together, rest = rows % together;
    call({row * channels, full, WIDTH, 0, WIDTH});
    if (rest) call({(row + full * together) * channels, rest, channels, 0, channels});
    return;
  }
  int64_t width = WIDTH;
  while (channels % width) width /= 2;
  for (int64_t c = 0; c < channels; c += width) call({row * channels + c, rows, channels, c, width});
}

// Numbers of each channel, repeated so that any strip finds its own beginning at its first channel.
class PerChannel {
 public:
  explicit PerChannel(int64_t channels) : channels_(channels), values_(channels + WIDTH) {}
  template <typename Value>
  void set(const Value& value) {
    for (int64_t c = 0; c < channels_; ++c) values_[c] = value(c);
    for (int64_t i = channels_; i < channels_ + WIDTH; ++i) values_[i] = values_[i - channels_];
  }
  float of(int64_t channel) const { return values_[channel]; }
  const float* at(const Strip& strip) const { return values_.data() + strip.channel; }

 private:
  int64_t channels_;
  std::vector<float> values_;
};

template <int V>
struct Vectors {
  Vector v[V];
  explicit Vectors(const float* from) {
#pragma GCC unroll 4
    for (int i = 0; i < V; ++i) v[i] = load(from + i * LANES);
  }
  Vectors() : v{} {}
};

// The rows that threads take, in chunks that are the same for any number of threads.
struct Rows {
  int64_t groups, positions, channels;
  int64_t most() const { return std::max(LEAST_ROWS, CHUNK / channels); }
  int64_t chunks() const { return ceil_div(positions, most()); }  // of a group
  int64_t begin(int64_t chunk) const { return positions * chunk / chunks(); }
  // work(group, chunk of the group, first row of all, rows)
  template <typename Work>
  void share_out(ffi::ThreadPool& pool, const Work& work) const {
    parallel(pool, groups * chunks(), [&](int64_t number) {
      const int64_t group = number / chunks(), chunk = number % chunks(), first = begin(chunk);
      work(group, chunk, group * positions + first, begin(chunk + 1) - first);
    });
  }
};

// Two sums over the positions of each group and channel: of a chunk in float32, of chunks in float64, in their order.
class Sums {
 public:
  explicit Sums(Rows rows) : rows_(rows), values_(2 * rows.groups * rows.chunks() * rows.channels) {}
  // add(vectors, group, strip, sums) sets both sums of a strip's lanes
  template <typename Add>
  void take(ffi::ThreadPool& pool, const Add& add) {
    rows_.share_out(pool, [&](int64_t group, int64_t chunk, int64_t row, int64_t rows) {
      double* own = of(group, chunk);
      for_strips(row, rows, rows_.channels, [&](auto vectors, Strip strip) {
        constexpr int V = decltype(vectors)::value;
        Vectors<V> sums[2];
        add(vectors, group, strip, sums);
        for (int kind = 0; kind < 2; ++kind)
          for (int64_t i = 0; i < strip.width; ++i)
            own[kind * rows_.channels + (strip.channel + i) % rows_.channels] += sums[kind].v[i / LANES][i % LANES];
      });
    });
    for (int64_t group = 0; group < rows_.groups; ++group)
      for (int64_t chunk = 1; chunk < rows_.chunks(); ++chunk)
        for (int64_t i = 0; i < 2 * rows_.channels; ++i) of(group, 0)[i] += of(group, chunk)[i];
  }
  double first(int64_t group, int64_t channel) { return of(group, 0)[channel]; }
  double second(int64_t group, int64_t channel) { return of(group, 0)[rows_.channels + channel]; }

 private:
  double* of(int64_t group, int64_t chunk) {
    return values_.data() + 2 * rows_.channels * (group * rows_.chunks() + chunk);
  }
  Rows rows_;
  std::vector<double> values_;
};

// The same expression for the layer and for what the ReLU let pass.
inline Vector normal(Vector x, Vector mean, Vector multiplier, Vector bias) { return (x - mean) * multiplier + bias; }

using Values = ffi::Buffer<ffi::F32, 3>;
using Channels = ffi::Buffer<ffi::F32, 1>;
using Statistics = ffi::Buffer<ffi::F32, 2>;

Rows rows_of(const Values& x) { return {x.dimensions()[0], x.dimensions()[1], x.dimensions()[2]}; }

// What maps values to outputs, of each group and channel.
struct Map {
  std::vector<PerChannel> mean, deviation, multiplier;
  PerChannel bias;
  Map(Rows rows, const float* means, const float* variances, const Channels& scale, const Channels& biases, float epsilon)
      : mean(rows.groups, PerChannel(rows.channels)), deviation(mean), multiplier(mean), bias(rows.channels) {
    bias.set([&](int64_t c) { return biases.typed_data()[c]; });
    for (int64_t group = 0; group < rows.groups; ++group) {
      const int64_t first = group * rows.channels;
      mean[group].set([&](int64_t c) { return means[first + c]; });
      deviation[group].set([&](int64_t c) { return std::sqrt(variances[first + c] + epsilon); });
      multiplier[group].set([&](int64_t c) { return scale.typed_data()[c] / deviation[group].of(c); });
    }
  }
};

ffi::Error layer(ffi::ThreadPool pool, Values values, Channels scale, Channels bias, ffi::Result<Values> outputs,
                 ffi::Result<Statistics> means, ffi::Result<Statistics> variances, float epsilon, bool relu) {
  const Rows rows = rows_of(values);
  const int64_t channels = rows.channels;
  const float* x = values.typed_data();
  // Sums of differences from the mean of a group's first positions: squares of values far from zero would lose digits.
  const int64_t some = std::min<int64_t>(rows.positions, 16);
  std::vector<PerChannel> shift(rows.groups, PerChannel(channels));
  for (int64_t group = 0; group < rows.groups; ++group)
    shift[group].set([&](int64_t c) {
      float total = 0;
      for (int64_t i = 0; i < some; ++i) total += x[(group * rows.positions + i) * channels + c];
      return total / static_cast<float>(some);
    });
  Sums sums(rows);
  sums.take(pool, [&](auto vectors, int64_t group, Strip strip, auto* sums) {
    constexpr int V = decltype(vectors)::value;
    const Vectors<V> from(shift[group].at(strip));
    Vectors<V> first, second;
    const float* seen = x + strip.start;
    for (int64_t i = 0; i < strip.count; ++i, seen += strip.step)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const Vector difference = load(seen + v * LANES) - from.v[v];
        first.v[v] += difference;
        second.v[v] += difference * difference;
      }
    sums[0] = first, sums[1] = second;
  });
  for (int64_t group = 0; group < rows.groups; ++group) {
    float *to_mean = means->typed_data() + group * channels, *to_variance = variances->typed_data() + group * channels;
    for (int64_t c = 0; c < channels; ++c) {
      const double first = sums.first(group, c) / rows.positions, second = sums.second(group, c) / rows.positions;
      const double variance = second - first * first;
      to_mean[c] = static_cast<float>(shift[group].of(c) + first);
      to_variance[c] = static_cast<float>(variance < 0 ? 0 : variance);  // of NaN, NaN
    }
  }
  const Map map(rows, means->typed_data(), variances->typed_data(), scale, bias, epsilon);
  rows.share_out(pool, [&](int64_t group, int64_t, int64_t row, int64_t count) {
    for_strips(row, count, channels, [&](auto vectors, Strip strip) {
      constexpr int V = decltype(vectors)::value;
      const Vectors<V> m(map.mean[group].at(strip)), by(map.multiplier[group].at(strip)), b(map.bias.at(strip));
      const float* from = x + strip.start;
      float* to = outputs->typed_data() + strip.start;
      auto run = [&](auto rectified) {
        for (int64_t i = 0; i < strip.count; ++i, from += strip.step, to += strip.step)
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) {
            Vector y = normal(load(from + v * LANES), m.v[v], by.v[v], b.v[v]);
            if constexpr (decltype(rectified)::value) y = y < 0 ? Vector{} : y;  // of NaN, NaN
            store(to + v * LANES, y);
          }
      };
      relu ? run(std::true_type{}) : run(std::false_type{});
    });
  });
  return ffi::Error::Success();
}

ffi::Error gradients(ffi::ThreadPool pool, Values values, Channels scale, Channels bias, Statistics means,
                     Statistics variances, Values cotangent, Statistics of_means, Statistics of_variances,
                     ffi::Result<Values> of_values, ffi::Result<Channels> of_scale, ffi::Result<Channels> of_bias,
                     float epsilon, bool relu) {
  const Rows rows = rows_of(values);
  const int64_t channels = rows.channels;
  const float *x = values.typed_data(), *g = cotangent.typed_data();
  const Map map(rows, means.typed_data(), variances.typed_data(), scale, bias, epsilon);
  std::vector<PerChannel> slope(rows.groups, PerChannel(channels)), level = slope;
  // each(centred value, what reaches it through the ReLU, strip's vector, step's first float) of all of a strip
  auto walk = [&](auto vectors, int64_t group, Strip strip, const auto& each) {
    constexpr int V = decltype(vectors)::value;
    const Vectors<V> m(map.mean[group].at(strip)), by(map.multiplier[group].at(strip)), b(map.bias.at(strip));
    auto run = [&](auto rectified) {
      for (int64_t i = 0, at = strip.start; i < strip.count; ++i, at += strip.step)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          const Vector seen = load(x + at + v * LANES);
          Vector reached = load(g + at + v * LANES);
          if constexpr (decltype(rectified)::value)
            reached = normal(seen, m.v[v], by.v[v], b.v[v]) > 0 ? reached : Vector{};
          each(seen - m.v[v], reached, v, at);
        }
    };
    relu ? run(std::true_type{}) : run(std::false_type{});
  };
  Sums sums(rows);
  sums.take(pool, [&](auto vectors, int64_t group, Strip strip, auto* sums) {
    Vectors<decltype(vectors)::value> first, second;
    walk(vectors, group, strip, [&](Vector centred, Vector reached, int v, int64_t) {
      first.v[v] += reached;
      second.v[v] += reached * centred;
    });
    sums[0] = first, sums[1] = second;
  });
  // Of an output y = (x - m) * s + b, s = scale / d, d = sqrt(variance + epsilon), over n positions:
  // s * (g - sum(g) / n - (x - m) * sum(g * (x - m)) / (n * d^2)), and what reaches m and the variance by themselves.
  const double n = static_cast<double>(rows.positions);
  for (int64_t group = 0; group < rows.groups; ++group) {
    slope[group].set([&](int64_t c) {
      const double d = map.deviation[group].of(c), s = scale.typed_data()[c] / d;
      return static_cast<float>(s * sums.second(group, c) / (n * d * d) -
                                2 * of_variances.typed_data()[group * channels + c] / n);
    });
    level[group].set([&](int64_t c) {
      const double s = scale.typed_data()[c] / map.deviation[group].of(c);
      return static_cast<float>((s * sums.first(group, c) - of_means.typed_data()[group * channels + c]) / n);
    });
  }
  for (int64_t c = 0; c < channels; ++c) {
    double scales = 0, biases = 0;
    for (int64_t group = 0; group < rows.groups; ++group) {
      scales += sums.second(group, c) / map.deviation[group].of(c);
      biases += sums.first(group, c);
    }
    of_scale->typed_data()[c] = static_cast<float>(scales);
    of_bias->typed_data()[c] = static_cast<float>(biases);
  }
  float* to = of_values->typed_data();
  rows.share_out(pool, [&](int64_t group, int64_t, int64_t row, int64_t count) {
    for_strips(row, count, channels, [&](auto vectors, Strip strip) {
      constexpr int V = decltype(vectors)::value;
      const Vectors<V> by(map.multiplier[group].at(strip)), k(slope[group].at(strip)), l(level[group].at(strip));
      walk(vectors, group, strip, [&](Vector centred, Vector reached, int v, int64_t at) {
        store(to + at + v * LANES, by.v[v] * reached - centred * k.v[v] - l.v[v]);
      });
    });
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNorm, layer,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Values>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Ret<Values>()
                                  .Ret<Statistics>()
                                  .Ret<Statistics>()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("relu"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(BatchNormGradients, gradients,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Values>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Arg<Statistics>()
                                  .Arg<Statistics>()
                                  .Arg<Values>()
                                  .Arg<Statistics>()
                                  .Arg<Statistics>()
                                  .Ret<Values>()
                                  .Ret<Channels>()
                                  .Ret<Channels>()
                                  .Attr<float>("epsilon")
                                  .Attr<bool>("relu"));
