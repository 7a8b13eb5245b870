// How numbers are stored and in what they are computed. Loops over these have no branches, so compilers vectorise them.
#pragma once

#include <cstdint>
#include <cstring>

template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class T>
struct Native {
    using Stored = T;
    using Math = T;
    static T load(T x) { return x; }
    static T store(T x) { return x; }
};

struct BFloat16 {
    using Stored = uint16_t;
    using Math = float;
    static float load(uint16_t x) { return bits<float>(uint32_t{x} << 16); }
    // To the nearest, ties to even; what would round a NaN to Inf becomes the quiet NaN.
    static uint16_t store(float x) {
        const uint32_t b = bits<uint32_t>(x);
        return x != x ? 0x7fc0 : (b + 0x7fff + (b >> 16 & 1)) >> 16;
    }
};

struct Float16 {
    using Stored = uint16_t;
    using Math = float;
    // Below 2^-14 halves are multiples of 2^-24. Above, a half's exponent bias is 112 less than a float's; Inf and NaN
    // get float's largest exponent. Subnormal floats, with which processors compute very slowly, do not occur.
    static float load(uint16_t x) {
        const int32_t magnitude = x & 0x7fff;
        const uint32_t special = magnitude >= 0x7c00 ? 0x7f800000 : 0;
        const uint32_t normal = ((uint32_t(magnitude) << 13) + 0x38000000) | special;
        const uint32_t tiny = bits<uint32_t>(float(magnitude) * 0x1p-24f);
        return bits<float>((magnitude < 0x400 ? tiny : normal) | uint32_t(x & 0x8000) << 16);
    }
    // Below 2^-14 half has the spacing that float has at 0.5, so an addition rounds; above, as for BFloat16.
    static uint16_t store(float x) {
        const uint32_t sign = bits<uint32_t>(x) >> 16 & 0x8000, b = bits<uint32_t>(x) & 0x7fffffff;
        const uint32_t tiny = bits<uint32_t>(bits<float>(b) + 0.5f) - 0x3f000000;
        const uint32_t normal = (b - 0x38000000 + 0xfff + (b >> 13 & 1)) >> 13;
        const uint32_t huge = b > 0x7f800000 ? 0x7e00 : 0x7c00;
        return sign | (b >= 0x47800000 ? huge : b < 0x38800000 ? tiny : normal);
    }
};
