// The narrow formats of moments under float32 weights; moments.py describes them.
#pragma once

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>

#include "loops.h"

enum Which { FIRST, SECOND };

// Elements that share a scale.
constexpr int64_t SCALED = 256;

// Wellons, hash-prospector, "lowbias32".
inline uint32_t hash32(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// 32 random bits for each element, which follow from its place in the tensor and the step. The first moment uses the
// upper half of them and the second the lower.
struct Noise {
    uint32_t salt, begin;

    Noise(float step, int64_t begin) : salt(hash32(uint32_t(step))), begin(uint32_t(begin)) {}
    // Of 32 bits, since compilers compute with as many as the index has.
    uint32_t operator()(int32_t i) const { return hash32((begin + uint32_t(i)) ^ salt); }
};

template <int count, Which which>
uint32_t part_of(uint32_t noise) {
    return which == FIRST ? noise >> (32 - count) : noise & ((1u << count) - 1);
}

template <Which which>
inline uint16_t round_bfloat16(float x, uint32_t noise) {
    return x != x ? 0x7fc0 : (bits<uint32_t>(x) + part_of<16, which>(noise)) >> 16;
}

// The first pass with moments of bfloat16 in one loop, which takes less time than a loop for each of its steps.
[[gnu::noinline]] inline Squares update_bfloat16(const float* __restrict grads, const float* __restrict weights,
                                                 uint16_t* __restrict exp_avgs, uint16_t* __restrict exp_avg_sqs,
                                                 float* __restrict kept, int32_t n, Decay<float> decay,
                                                 Direction<float> direction, Noise noise) {
    double weight = 0, update = 0;
#pragma omp simd reduction(+ : weight, update)
    for (int32_t i = 0; i < n; ++i) {
        const float g = grads[i], w = weights[i];
        // u follows from the moments as they are stored.
        const uint32_t own = noise(i);
        const uint16_t m = round_bfloat16<FIRST>(decay.first(BFloat16::load(exp_avgs[i]), g), own);
        const uint16_t v = round_bfloat16<SECOND>(decay.second(BFloat16::load(exp_avg_sqs[i]), g), own);
        const float u = direction(w, BFloat16::load(m), BFloat16::load(v));
        exp_avgs[i] = m;
        exp_avg_sqs[i] = v;
        kept[i] = u;
        weight += square(w);
        update += square(u);
    }
    return {weight, update};
}

constexpr int DECADES = 7;
// Numbers of one sign in a decade.
constexpr int count_in(int decade, Which which) { return 1 << (decade + (which == SECOND)); }

// What the codes stand for, ascending.
struct DynamicMap {
    std::array<float, 256> unit;

    explicit DynamicMap(Which which) {
        constexpr double decades[DECADES] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
        size_t filled = 0;
        for (int decade = 0; decade < DECADES; ++decade) {
            const int count = count_in(decade, which);
            const double width = 0.9 / count;
            for (int i = 0; i < count; ++i) {
                const double magnitude = decades[decade] * (0.1 + width * (i + 0.5));
                unit[filled++] = float(magnitude);
                if (which == FIRST) unit[filled++] = float(-magnitude);
            }
        }
        unit[filled++] = 0;
        unit[filled++] = 1;
        std::sort(unit.begin(), unit.end());
    }
    static const DynamicMap& of(Which which) {
        static const DynamicMap maps[] = {DynamicMap(FIRST), DynamicMap(SECOND)};
        return maps[which];
    }
};

// Where numbers lie among the codes, in steps of 2^-15 codes: the inverse of the map, which is straight within a decade
// and from one to the next. Lines are several times faster than a search, which would take gathers.
template <Which which>
struct Ranks {
    static constexpr int FRACTION = 15;
    static constexpr int32_t ONE = 1 << FRACTION;
    // From 2^23 to its double a float has no bits behind the point, and its lowest bits are those of an integer.
    static constexpr float WHOLE = 1 << 23;
    static constexpr int ZERO = which == FIRST ? 127 : 0;  // the code of 0

    struct Line {
        float slope, offset;
        float operator()(float x) const { return slope * x + offset; }
    };
    Line lines[2 * DECADES], top;

    Ranks() {
        const float* const units = DynamicMap::of(which).unit.data() + ZERO;
        const auto line = [=](int low, int high) {
            const float slope = float(double(high - low) * ONE / (double(units[high]) - units[low]));
            return Line{slope, float(double(high) * ONE - double(slope) * units[high])};
        };
        int rank = 0;
        for (int decade = 0; decade < DECADES; ++decade) {
            const int first = rank + 1;
            lines[2 * decade] = line(rank, first);
            rank += count_in(decade, which);
            lines[2 * decade + 1] = first < rank ? line(first, rank) : lines[2 * decade];
        }
        top = line(rank, rank + 1);  // no rounding in it moves 1
    }
    static const Ranks& get() {
        static const Ranks ranks;
        return ranks;
    }
    // In the lower 23 bits; those above are a multiple of 256 codes.
    uint32_t operator()(float unit) const {
        const float size = std::fabs(unit) < 1 ? std::fabs(unit) : 1;  // 1 for NaN, as in moments.py
        // Up to the last number below 1 the codes thin out, so of all lines the lowest holds.
        float rank = lines[0](size);
        for (const Line& line : lines) rank = std::min(rank, line(size));
        rank = std::max(rank, top(size));
        if constexpr (which == FIRST) rank = unit < 0 ? std::max(-rank, float(-ZERO * ONE)) : rank;
        // The update is divided by the root of the second: what is not 0 never becomes 0.
        if constexpr (which == SECOND) rank = size > 0 ? std::max(rank, float(ONE)) : 0;
        return bits<uint32_t>(rank + (WHOLE + ZERO * ONE));
    }
};

// The element that is largest in magnitude, the negative one of two, or NaN: the bits are compared as an integer with
// the sign last, in whose order NaN comes behind all numbers.
template <Which which>
float scale_of(const float* x, int64_t n) {
    uint32_t largest = 0;
#pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < n; ++i) largest = std::max(largest, bits<uint32_t>(x[i]) << 1 | bits<uint32_t>(x[i]) >> 31);
    const float scale = bits<float>(largest >> 1 | largest << 31), size = std::fabs(scale);
    // A square that overflowed must not become a scale, which would make a block of NaN.
    if (which == SECOND && size > FLT_MAX) return FLT_MAX;
    return size > 0 && size < FLT_MIN ? FLT_MIN : scale;  // of a smaller one the reciprocal is Inf
}

// Codes of at most SCALED elements; returns their scale.
template <Which which>
[[gnu::noinline]] float quantise(const float* __restrict from, uint8_t* __restrict codes, int32_t n, Noise noise) {
    constexpr int FRACTION = Ranks<which>::FRACTION;
    const Ranks<which> ranks = Ranks<which>::get();
    const float scale = scale_of<which>(from, n), inverse = 1 / (scale == 0 ? 1 : scale);
#pragma omp simd
    for (int32_t i = 0; i < n; ++i)
        codes[i] = uint8_t((ranks(from[i] * inverse) + part_of<FRACTION, which>(noise(i))) >> FRACTION);
    return scale;
}

[[gnu::noinline]] inline void dequantise(const uint8_t* __restrict codes, float* __restrict to, int64_t n,
                                         Which which, float scale) {
    const float* const map = DynamicMap::of(which).unit.data();
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = map[codes[i]] * scale;
}
