// The narrow formats of moments under float32 weights; moments.py describes them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "numbers.h"

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
    uint32_t operator()(int64_t i) const { return hash32((begin + uint32_t(i)) ^ salt); }
};

[[gnu::noinline]] inline void round_bfloat16(const float* __restrict from, uint16_t* __restrict to, int64_t n,
                                             Noise noise) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t rounded = (bits<uint32_t>(from[i]) + (noise(i) >> 16)) >> 16;
        to[i] = from[i] != from[i] ? 0x7fc0 : rounded;
    }
}

// What the codes stand for, ascending; the last entry is a neighbour for 1 that no number is near to.
struct DynamicMap {
    std::array<float, 257> unit;

    explicit DynamicMap(Which which) {
        constexpr double decades[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
        size_t filled = 0;
        for (int decade = 0; decade < 7; ++decade) {
            const int count = 1 << (decade + (which == SECOND));
            const double width = 0.9 / count;
            for (int i = 0; i < count; ++i) {
                const double magnitude = decades[decade] * (0.1 + width * (i + 0.5));
                unit[filled++] = float(magnitude);
                if (which == FIRST) unit[filled++] = float(-magnitude);
            }
        }
        unit[filled++] = 0;
        unit[filled++] = 1;
        std::sort(unit.begin(), unit.begin() + filled);
        unit[filled] = 2;
    }
    static const DynamicMap& of(Which which) {
        static const DynamicMap maps[] = {DynamicMap(FIRST), DynamicMap(SECOND)};
        return maps[which];
    }
};

// The element that is largest in magnitude, the first of them; NaN if there is one.
inline float largest(const float* x, int64_t n) {
    float most = 0, poison = 0;
#pragma omp simd reduction(max : most) reduction(+ : poison)
    for (int64_t i = 0; i < n; ++i) {
        most = std::max(most, std::fabs(x[i]));
        poison += x[i] != x[i] ? 1.0f : 0.0f;
    }
    if (poison != 0) return NAN;
    return *std::find_if(x, x + n - 1, [=](float element) { return std::fabs(element) == most; });
}

// Codes of at most SCALED elements; returns their scale.
[[gnu::noinline]] inline float quantise(const float* __restrict from, uint8_t* __restrict codes, int64_t n,
                                        Which which, Noise noise) {
    const float* const map = DynamicMap::of(which).unit.data();
    const float scale = largest(from, n), divisor = scale == 0 ? 1 : scale;
    const int32_t least = which == SECOND ? 1 : 0;  // the smallest code of what is above 0
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const float unit = from[i] / divisor;
        // A binary search, unrolled, else the loop around it would not be vectorised.
        int32_t low = map[128] <= unit ? 128 : 0;
        low += map[low + 64] <= unit ? 64 : 0;
        low += map[low + 32] <= unit ? 32 : 0;
        low += map[low + 16] <= unit ? 16 : 0;
        low += map[low + 8] <= unit ? 8 : 0;
        low += map[low + 4] <= unit ? 4 : 0;
        low += map[low + 2] <= unit ? 2 : 0;
        low += map[low + 1] <= unit ? 1 : 0;
        const float fraction = (unit - map[low]) / (map[low + 1] - map[low]);
        const float threshold = float(int32_t(noise(i) >> 8)) * 0x1p-24f;
        const int32_t code = low + (fraction > threshold ? 1 : 0);
        codes[i] = uint8_t(std::max(code, unit > 0 ? least : 0));
    }
    return scale;
}

[[gnu::noinline]] inline void dequantise(const uint8_t* __restrict codes, float* __restrict to, int64_t n,
                                         Which which, float scale) {
    const float* const map = DynamicMap::of(which).unit.data();
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = map[codes[i]] * scale;
}
