// What is done to one block of a tensor, by the formats of what belongs to it.
#pragma once

#include <cstring>
#include <vector>

#include "plan.h"

// Elements that are widened at a time where formats are mixed.
constexpr int64_t STAGE = 2 * SCALED;

// A dtype of weights that gradients and moments share.
template <class N>
struct Alike {
    using Stored = typename N::Stored;
    using Math = typename N::Math;

    const Table& table;
    const Call& call;
    std::vector<Decay<Math>> decays;          // [T]
    std::vector<Direction<Math>> directions;  // [T]

    Alike(const Table& table, const Call& call, bool advance) : table(table), call(call) {
        decays.reserve(table.count);
        directions.reserve(table.count);
        float before = NAN;  // the step of the tensor before: most share it, and a new one costs two powers
        for (int64_t tensor = 0; tensor < table.count; ++tensor) {
            const Settings& settings = call.settings[tensor];
            float& step = *table.address<float>(STEP, tensor);
            if (advance && !call.skip()) step += 1;
            const bool repeats = step == before && !std::memcmp(&settings, &settings - 1, sizeof settings);
            decays.push_back(repeats ? decays.back() : Decay<Math>(settings, call.clip ? call.clip[1] : 1));
            directions.push_back(repeats ? directions.back() : Direction<Math>(settings, step));
            before = step;
        }
    }

    Stored* at(Row row, const Block& block) const { return table.address<Stored>(row, block.tensor) + block.begin; }

    // The first pass over a block; u goes to `kept`, unless that is null.
    Squares first(const Block& block, Math* kept = nullptr) const {
        return kept ? run<KEEP>(block, 0, kept) : run<DROP>(block, 0, kept);
    }

    // Both passes over a block at once, where the ratio is known beforehand; `room` [BLOCK] is for those who need it.
    Squares both(const Block& block, double scale, Math* room) const {
        return scale == 0 ? run<DROP>(block, 0, room) : run<APPLY>(block, scale, room);
    }

    // The second pass over a block; u is what the first one kept, or computed again if that is null.
    void second(const Block& block, double scale, const Math* kept = nullptr) const {
        if (scale == 0) return;
        const int64_t n = block.end - block.begin;
        if (kept)
            apply_kept<N>(at(WEIGHT, block), kept, n, Math(scale));
        else
            apply<N>(at(WEIGHT, block), at(EXP_AVG, block), at(EXP_AVG_SQ, block), n, Math(scale),
                     directions[block.tensor]);
    }

   private:
    template <Use use>
    Squares run(const Block& block, double scale, Math* kept) const {
        const int64_t n = block.end - block.begin;
        if (call.skip()) return {squares<N>(at(WEIGHT, block), n), 0};
        return update<N, use>(at(GRAD, block), at(WEIGHT, block), at(EXP_AVG, block), at(EXP_AVG_SQ, block), kept, n,
                              Math(scale), decays[block.tensor], directions[block.tensor]);
    }
};

// float32 weights whose gradients or moments have another format: these are widened piece by piece.
struct Mixed : Alike<Native<float>> {
    using Alike::Alike;

    Squares first(const Block& block, float* kept = nullptr) const {
        if (call.skip()) return Alike::first(block);
        Squares sum;
        float unkept[STAGE];
        for (int64_t begin = block.begin; begin < block.end; begin += STAGE) {
            const Block piece{block.tensor, begin, std::min(begin + STAGE, block.end), 0};
            const Squares own = first_of(piece, kept ? kept + (begin - block.begin) : unkept);
            sum.weight += own.weight;
            sum.update += own.update;
        }
        return sum;
    }

    void second(const Block& block, double scale, const float* kept = nullptr) const {
        if (scale == 0) return;
        for (int64_t begin = block.begin; begin < block.end; begin += STAGE) {
            const Block piece{block.tensor, begin, std::min(begin + STAGE, block.end), 0};
            second_of(piece, float(scale), kept ? kept + (begin - block.begin) : nullptr);
        }
    }

    Squares both(const Block& block, double scale, float* room) const {
        const Squares sum = first(block, room);
        second(block, call.skip() ? 0 : scale, room);
        return sum;
    }

   private:
    Squares first_of(const Block& piece, float* kept) const {
        const int64_t n = piece.end - piece.begin;
        if (const uint16_t* const copy = half(COPY, piece)) {
            if (call.grads == BFLOAT16) follow<BFloat16>(copy, at(WEIGHT, piece), n);
            if (call.grads == FLOAT16) follow<Float16>(copy, at(WEIGHT, piece), n);
        }
        const auto& decay = decays[piece.tensor];
        const auto& direction = directions[piece.tensor];
        float room[STAGE];
        const float* const g = gradient(piece, room);
        if (call.moments == FLOAT32)
            return update<Native<float>, KEEP>(g, at(WEIGHT, piece), at(EXP_AVG, piece), at(EXP_AVG_SQ, piece), kept, n,
                                               0.0f, decay, direction);
        if (call.moments == BFLOAT16)
            return update_bfloat16(g, at(WEIGHT, piece), half(EXP_AVG, piece), half(EXP_AVG_SQ, piece), kept, int32_t(n),
                                   decay, direction, noise(piece));
        float m[STAGE], v[STAGE];
        load(piece, FIRST, m);
        load(piece, SECOND, v);
        advance(g, m, v, n, decay);
        store<FIRST>(piece, m);
        store<SECOND>(piece, v);
        load(piece, FIRST, m);  // u follows from the moments as they are stored
        load(piece, SECOND, v);
        return direct(at(WEIGHT, piece), m, v, kept, n, direction);
    }

    void second_of(const Block& piece, float scale, const float* kept) const {
        const int64_t n = piece.end - piece.begin;
        float* const w = at(WEIGHT, piece);
        if (kept) {
            apply_kept<Native<float>>(w, kept, n, scale);
        } else if (call.moments == FLOAT32) {
            apply<Native<float>>(w, at(EXP_AVG, piece), at(EXP_AVG_SQ, piece), n, scale, directions[piece.tensor]);
        } else {
            float m[STAGE], v[STAGE];
            load(piece, FIRST, m);
            load(piece, SECOND, v);
            apply<Native<float>>(w, m, v, n, scale, directions[piece.tensor]);
        }
        uint16_t* const copy = half(COPY, piece);
        if (copy && call.grads == BFLOAT16) narrow<BFloat16>(w, copy, n);
        if (copy && call.grads == FLOAT16) narrow<Float16>(w, copy, n);
    }

    uint16_t* half(Row row, const Block& piece) const {
        uint16_t* const whole = table.address<uint16_t>(row, piece.tensor);
        return whole ? whole + piece.begin : nullptr;
    }

    Noise noise(const Block& piece) const {
        return Noise(*table.address<float>(STEP, piece.tensor), piece.begin);
    }

    // The gradient in float32: as it is, or widened into `room` [STAGE].
    const float* gradient(const Block& piece, float* room) const {
        const int64_t n = piece.end - piece.begin;
        if (call.grads == FLOAT32) return at(GRAD, piece);
        if (call.grads == BFLOAT16)
            widen<BFloat16>(half(GRAD, piece), room, n);
        else
            widen<Float16>(half(GRAD, piece), room, n);
        return room;
    }

    // Moments in a narrow format, widened.
    void load(const Block& piece, Which which, float* to) const {
        const Row row = which == FIRST ? EXP_AVG : EXP_AVG_SQ;
        if (call.moments == BFLOAT16) return widen<BFloat16>(half(row, piece), to, piece.end - piece.begin);
        each_scaled(piece, which, [=](uint8_t* codes, float& scale, int64_t from, int64_t size) {
            dequantise(codes, to + from, size, which, scale);
        });
    }

    // Round moments to 8 bits and store them.
    template <Which which>
    void store(const Block& piece, const float* values) const {
        each_scaled(piece, which, [=](uint8_t* codes, float& scale, int64_t from, int64_t size) {
            const Block scaled{piece.tensor, piece.begin + from, piece.begin + from + size, 0};
            scale = quantise<which>(values + from, codes, int32_t(size), noise(scaled));
        });
    }

    // Call visit(codes, scale, elements of the piece before them, how many they are).
    template <class Visit>
    void each_scaled(const Block& piece, Which which, Visit visit) const {
        uint8_t* const codes = table.address<uint8_t>(which == FIRST ? EXP_AVG : EXP_AVG_SQ, piece.tensor);
        float* const scales = table.address<float>(which == FIRST ? FIRST_SCALE : SECOND_SCALE, piece.tensor);
        for (int64_t begin = piece.begin; begin < piece.end; begin += SCALED)
            visit(codes + begin, scales[begin / SCALED], begin - piece.begin, std::min(SCALED, piece.end - begin));
    }
};
