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
    // 2^112 moves the exponent from half's bias to float's; above half's range only Inf and NaN are left.
    static float load(uint16_t x) {
        const float magnitude = bits<float>(uint32_t(x & 0x7fff) << 13) * 0x1p112f;
        const uint32_t special = magnitude >= 65536.0f ? 0x7f800000 : 0;
        return bits<float>(bits<uint32_t>(magnitude) | special | uint32_t(x & 0x8000) << 16);
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
