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

template <class N>
[[gnu::noinline]] double squares(const typename N::Stored* x, int64_t n) {
    // Four sums side by side, else each addition would wait for the one before.
    const auto square = [=](int64_t i) { return double(N::load(x[i])) * double(N::load(x[i])); };
    const int64_t quarter = n / 4;
    double a = 0, b = 0, c = 0, d = 0;
#pragma omp simd reduction(+ : a, b, c, d)
    for (int64_t i = 0; i < quarter; ++i) {
        a += square(i);
        b += square(i + quarter);
        c += square(i + 2 * quarter);
        d += square(i + 3 * quarter);
    }
    for (int64_t i = 4 * quarter; i < n; ++i) a += square(i);
    return a + b + c + d;
}

// Elements that the first pass fetches ahead.
constexpr int64_t AHEAD = 256;

// What is done with u where it is computed: nothing, since the second pass computes it again; it goes to `kept` [n]; or
// scale·u is subtracted at once, so that no second pass is needed.
enum Use { DROP, KEEP, APPLY };

// The first pass. What the second pass does not need is fetched past the caches, so that they have room for what it needs.
template <class N, Use use, class Stored = typename N::Stored, class Math = typename N::Math>
[[gnu::noinline]] Squares update(const Stored* __restrict grads, Stored* __restrict weights,
                                 Stored* __restrict exp_avgs, Stored* __restrict exp_avg_sqs, Math* __restrict kept,
                                 int64_t n, Math scale, Decay<Math> decay, Direction<Math> direction) {
    // Lanes by hand, because compilers do not vectorise a loop that fetches; a row is what one fetch brings.
    constexpr int64_t LANES = 8, ROW = 64 / sizeof(Stored);
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
        weight[lane] += double(w) * double(w);
        update[lane] += double(u) * double(u);
    };
    int64_t i = 0;
    for (; i + ROW <= n; i += ROW) {
        __builtin_prefetch(grads + i + AHEAD, 0, 0);
        __builtin_prefetch(exp_avgs + i + AHEAD, 0, 0);
        __builtin_prefetch(exp_avg_sqs + i + AHEAD, 0, 0);
        __builtin_prefetch(weights + i + AHEAD, 0, 3);
        for (int64_t begin = i; begin < i + ROW; begin += LANES) {
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
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const Math w = N::load(weights[i]);
        weights[i] = N::store(w - scale * direction(w, N::load(exp_avgs[i]), N::load(exp_avg_sqs[i])));
    }
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
        weight += double(w) * double(w);
        update += double(u) * double(u);
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
