// The loops over elements. They are functions of their own because compilers honour __restrict for parameters alone.
#pragma once

#include <algorithm>
#include <cmath>

#include "numbers.h"

struct Settings {  // a row of the table of settings.py
    double beta1, beta2, beta3, eps, weight_decay, weight_low, weight_high, ratio_low, ratio_high;
    double bias_correction, layer_adaptation;
};

struct Squares {
    double weight = 0, update = 0;
};

// What the moments are made from.
template <class Math>
struct Decay {
    Math clip, beta1, beta2, beta3, rest2;

    Decay(const Settings& s, double clip)
        : clip(clip), beta1(s.beta1), beta2(s.beta2), beta3(s.beta3), rest2(1 - s.beta2) {}
    Math first(Math m, Math g) const { return beta1 * m + beta3 * (clip * g); }
    Math second(Math v, Math g) const { return beta2 * v + rest2 * ((clip * g) * (clip * g)); }
};

// u = (m/c1) / (sqrt(v)/c2 + eps) + weight_decay·w with c2 drawn out of the denominator: one division instead of three.
template <class Math>
struct Direction {
    Math scale, eps, weight_decay;

    Direction(const Settings& s, float step) {
        const double t = std::max(double(step), 1.0);  // 0 only before a first step that is skipped
        const double c1 = s.bias_correction ? 1 - std::pow(s.beta1, t) : 1;
        const double c2 = s.bias_correction ? std::sqrt(1 - std::pow(s.beta2, t)) : 1;
        scale = Math(c2 / c1);
        eps = Math(s.eps * c2);
        weight_decay = Math(s.weight_decay);
    }
    Math operator()(Math w, Math m, Math v) const { return scale * m / (std::sqrt(v) + eps) + weight_decay * w; }
};

// A row is what one fetch brings. Loops go by rows and in lanes of their own, because compilers do not vectorise a loop
// that fetches.
template <class Stored>
constexpr int64_t ROW = 64 / sizeof(Stored);

// Elements that a pass fetches ahead.
constexpr int64_t AHEAD = 256;

// How the first pass fetches moments, which it writes and does not need again. AMD's processors fetch past the caches,
// so that these have room for what the second pass needs. On Intel's that made the pass 1.2 times as slow.
#ifdef __SSE4A__  // AMD's alone have it
constexpr int TO_WRITE = 0, LEVEL = 0;
#else
constexpr int TO_WRITE = 1, LEVEL = 3;
#endif

inline double square(double x) { return x * x; }

// Four streams side by side and fetched ahead: one core then reads 1.2 times the bytes in a second.
template <class N, class Stored = typename N::Stored>
[[gnu::noinline]] double squares(const Stored* x, int64_t n) {
    constexpr int64_t STREAMS = 4, LANES = ROW<Stored>;
    double sums[LANES] = {};
    const int64_t length = n / STREAMS / LANES * LANES;
    for (int64_t i = 0; i < length; i += LANES) {
        for (const Stored* from = x + i; from < x + STREAMS * length; from += length) {
            __builtin_prefetch(from + 2 * AHEAD, 0, 3);
#pragma omp simd
            for (int64_t lane = 0; lane < LANES; ++lane) sums[lane] += square(N::load(from[lane]));
        }
    }
    for (int64_t i = STREAMS * length; i < n; ++i) sums[0] += square(N::load(x[i]));
    double sum = 0;
    for (const double each : sums) sum += each;
    return sum;
}

// What is done with u where it is computed: nothing, since the second pass computes it again; it goes to `kept` [n]; or
// scale·u is subtracted at once, so that no second pass is needed.
enum Use { DROP, KEEP, APPLY };

// The first pass.
template <class N, Use use, class Stored = typename N::Stored, class Math = typename N::Math>
[[gnu::noinline]] Squares update(const Stored* __restrict grads, Stored* __restrict weights,
                                 Stored* __restrict exp_avgs, Stored* __restrict exp_avg_sqs, Math* __restrict kept,
                                 int64_t n, Math scale, Decay<Math> decay, Direction<Math> direction) {
    constexpr int64_t LANES = 8;
    double weight[LANES] = {}, update[LANES] = {};
    const auto element = [&](int64_t i, int64_t lane) __attribute__((always_inline)) {
        const Math g = N::load(grads[i]), w = N::load(weights[i]);
        // u follows from the moments as they are stored: the second pass may have no others.
        const Stored m = N::store(decay.first(N::load(exp_avgs[i]), g));
        const Stored v = N::store(decay.second(N::load(exp_avg_sqs[i]), g));
        const Math u = direction(w, N::load(m), N::load(v));
        exp_avgs[i] = m;
        exp_avg_sqs[i] = v;
        if constexpr (use == KEEP) kept[i] = u;
        if constexpr (use == APPLY) weights[i] = N::store(w - scale * u);
        weight[lane] += square(w);
        update[lane] += square(u);
    };
    int64_t i = 0;
    for (; i + ROW<Stored> <= n; i += ROW<Stored>) {
        __builtin_prefetch(grads + i + AHEAD, 0, 0);
        __builtin_prefetch(exp_avgs + i + AHEAD, TO_WRITE, LEVEL);
        __builtin_prefetch(exp_avg_sqs + i + AHEAD, TO_WRITE, LEVEL);
        __builtin_prefetch(weights + i + AHEAD, use == APPLY, 3);
        if constexpr (use == KEEP) __builtin_prefetch(kept + i + AHEAD, 1, 3);
        for (int64_t begin = i; begin < i + ROW<Stored>; begin += LANES) {
#pragma omp simd
            for (int64_t lane = 0; lane < LANES; ++lane) element(begin + lane, lane);
        }
    }
    for (; i < n; ++i) element(i, 0);
    Squares sum;
    for (int64_t lane = 0; lane < LANES; ++lane) {
        sum.weight += weight[lane];
        sum.update += update[lane];
    }
    return sum;
}

// The second pass.
template <class N, class Stored = typename N::Stored, class Math = typename N::Math>
[[gnu::noinline]] void apply(Stored* __restrict weights, const Stored* __restrict exp_avgs,
                             const Stored* __restrict exp_avg_sqs, int64_t n, Math scale, Direction<Math> direction) {
    const auto element = [&](int64_t i) __attribute__((always_inline)) {
        const Math w = N::load(weights[i]);
        weights[i] = N::store(w - scale * direction(w, N::load(exp_avgs[i]), N::load(exp_avg_sqs[i])));
    };
    int64_t i = 0;
    for (; i + ROW<Stored> <= n; i += ROW<Stored>) {
        __builtin_prefetch(weights + i + AHEAD, 1, 3);
        __builtin_prefetch(exp_avgs + i + AHEAD, 0, 3);
        __builtin_prefetch(exp_avg_sqs + i + AHEAD, 0, 3);
#pragma omp simd
        for (int64_t lane = 0; lane < ROW<Stored>; ++lane) element(i + lane);
    }
    for (; i < n; ++i) element(i);
}

// The second pass with u from the first.
template <class N, class Stored = typename N::Stored, class Math = typename N::Math>
[[gnu::noinline]] void apply_kept(Stored* __restrict weights, const Math* __restrict kept, int64_t n, Math scale) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) weights[i] = N::store(N::load(weights[i]) - scale * kept[i]);
}

// The first pass in two loops, for moments that are rounded in between.
[[gnu::noinline]] inline void advance(const float* __restrict grads, float* __restrict exp_avgs,
                                      float* __restrict exp_avg_sqs, int64_t n, Decay<float> decay) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        exp_avgs[i] = decay.first(exp_avgs[i], grads[i]);
        exp_avg_sqs[i] = decay.second(exp_avg_sqs[i], grads[i]);
    }
}

[[gnu::noinline]] inline Squares direct(const float* __restrict weights, const float* __restrict exp_avgs,
                                        const float* __restrict exp_avg_sqs, float* __restrict kept, int64_t n,
                                        Direction<float> direction) {
    double weight = 0, update = 0;
#pragma omp simd reduction(+ : weight, update)
    for (int64_t i = 0; i < n; ++i) {
        const float w = weights[i], u = direction(w, exp_avgs[i], exp_avg_sqs[i]);
        kept[i] = u;
        weight += square(w);
        update += square(u);
    }
    return {weight, update};
}

template <class N>
[[gnu::noinline]] void widen(const typename N::Stored* __restrict from, float* __restrict to, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = N::load(from[i]);
}

template <class N>
[[gnu::noinline]] void narrow(const float* __restrict from, typename N::Stored* __restrict to, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = N::store(from[i]);
}

// Copies are their weights in half precision. One that is not was written by somebody else, and becomes the weight.
template <class N>
[[gnu::noinline]] void follow(const typename N::Stored* __restrict copies, float* __restrict weights, int64_t n) {
    int32_t written = 0;
#pragma omp simd reduction(| : written)
    for (int64_t i = 0; i < n; ++i) written |= N::store(weights[i]) != copies[i];
    if (!written) return;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) weights[i] = N::store(weights[i]) == copies[i] ? weights[i] : N::load(copies[i]);
}
