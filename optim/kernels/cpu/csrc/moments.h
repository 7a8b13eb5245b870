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

// 32 random bits for each element, which follow from its place in the tensor, the step and the moment.
struct Noise {
    uint32_t salt, begin;

    Noise(float step, Which which, int64_t begin) : salt(hash32(uint32_t(step) * 2 + which)), begin(uint32_t(begin)) {}
    // Of 32 bits, since compilers compute with as many as the index has.
    uint32_t operator()(int32_t i) const { return hash32((begin + uint32_t(i)) ^ salt); }
};

inline uint16_t round_bfloat16(float x, uint32_t noise) {
    return x != x ? 0x7fc0 : (bits<uint32_t>(x) + (noise >> 16)) >> 16;
}

// The first pass with moments of bfloat16 in one loop, which takes less time than a loop for each of its steps.
[[gnu::noinline]] inline Squares update_bfloat16(const float* __restrict grads, const float* __restrict weights,
                                                 uint16_t* __restrict exp_avgs, uint16_t* __restrict exp_avg_sqs,
                                                 float* __restrict kept, int32_t n, Decay<float> decay,
                                                 Direction<float> direction, Noise first, Noise second) {
    double weight = 0, update = 0;
#pragma omp simd reduction(+ : weight, update)
    for (int32_t i = 0; i < n; ++i) {
        const float g = grads[i], w = weights[i];
        // u follows from the moments as they are stored.
        const uint16_t m = round_bfloat16(decay.first(BFloat16::load(exp_avgs[i]), g), first(i));
        const uint16_t v = round_bfloat16(decay.second(BFloat16::load(exp_avg_sqs[i]), g), second(i));
        const float u = direction(w, BFloat16::load(m), BFloat16::load(v));
        exp_avgs[i] = m;
        exp_avg_sqs[i] = v;
        kept[i] = u;
        weight += double(w) * double(w);
        update += double(u) * double(u);
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

// Where numbers lie among the codes, in steps of 2^-23 codes: the inverse of the map, which is straight within a decade
// and from one to the next. Lines are several times faster than a search, which would take gathers.
struct Ranks {
    static constexpr int FRACTION = 23;
    static constexpr int32_t ONE = 1 << FRACTION;
    struct Line {
        float slope, offset;
        float operator()(float x) const { return slope * x + offset; }
    };
    Line lines[2 * DECADES], top;
    float last;             // where the largest number below 1 lies, from 0
    int32_t zero;           // where 0 lies
    int32_t least, lowest;  // the smallest code of what is above 0, and of what is not, from 0

    explicit Ranks(Which which)
        : zero(which == FIRST ? 127 * ONE : 0), least(which == SECOND ? ONE : 0), lowest(-zero) {
        const float* const units = DynamicMap::of(which).unit.data() + (zero >> FRACTION);
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
        top = line(rank, rank + 1);  // no rounding in it moves 1, so a scale comes back to the bit
        last = float(rank) * ONE;
    }
    static const Ranks& of(Which which) {
        static const Ranks ranks[] = {Ranks(FIRST), Ranks(SECOND)};
        return ranks[which];
    }
    int32_t operator()(float unit) const {
        // Up to the last the codes thin out, so of all lines the lowest holds. NaN is last, as in moments.py.
        float rank = last;
        for (const Line& line : lines) rank = std::min(rank, line(std::fabs(unit)));
        const int32_t place = int32_t(unit < 0 ? -rank : std::max(rank, top(unit)));
        return zero + std::max(place, unit > 0 ? least : lowest);
    }
};

// A square that overflowed must not become a scale, which would make a block of NaN. NaN stays NaN.
[[gnu::noinline]] inline void hold_finite(float* __restrict squares, int64_t n) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) squares[i] = squares[i] > FLT_MAX ? FLT_MAX : squares[i];
}

// The element that is largest in magnitude, the first of them; NaN if there is one.
inline float largest(const float* x, int64_t n) {
    // Read as integers, floats above 0 are in order if the integers have a sign, and those below 0 if they have none.
    int32_t above = INT32_MIN;
    uint32_t below = 0;
#pragma omp simd reduction(max : above, below)
    for (int64_t i = 0; i < n; ++i) {
        above = std::max(above, bits<int32_t>(x[i]));
        below = std::max(below, bits<uint32_t>(x[i]));
    }
    const float high = bits<float>(above), low = bits<float>(below);
    if (high != high || low != low) return NAN;
    if (std::fabs(high) != std::fabs(low)) return std::fabs(high) > std::fabs(low) ? high : low;
    return *std::find_if(x, x + n - 1, [=](float element) { return std::fabs(element) == std::fabs(high); });
}

// Codes of at most SCALED elements; returns their scale.
[[gnu::noinline]] inline float quantise(const float* __restrict from, uint8_t* __restrict codes, int32_t n,
                                        Which which, Noise noise) {
    const Ranks ranks = Ranks::of(which);
    const float scale = largest(from, n), divisor = scale == 0 ? 1 : scale;
#pragma omp simd
    for (int32_t i = 0; i < n; ++i) {
        const int32_t threshold = int32_t(noise(i) >> (32 - Ranks::FRACTION));
        codes[i] = uint8_t((ranks(from[i] / divisor) + (Ranks::ONE - 1 - threshold)) >> Ranks::FRACTION);
    }
    return scale;
}

[[gnu::noinline]] inline void dequantise(const uint8_t* __restrict codes, float* __restrict to, int64_t n,
                                         Which which, float scale) {
    const float* const map = DynamicMap::of(which).unit.data();
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = map[codes[i]] * scale;
}
