// The two passes of a LAMB step over many tensors, on the threads of the OpenMP that PyTorch has loaded.
//
// T = tensors of a call. `table`, int64 [6, T], has a row for each of: elements, and the addresses of gradients,
// weights, first moments, second moments, and steps (float32). Tensors are contiguous and of one dtype.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "numbers.h"

namespace {

// Sums are taken block by block and added in their order, so they do not depend on the number of threads.
constexpr int64_t BLOCK = 16384;
// Elements that get their first pass before any gets its second, which then finds them in cache.
constexpr int64_t GROUP = 1 << 18;
// Elements of u that a thread keeps from the first pass for the second; beyond that it computes them again.
constexpr int64_t KEPT = 64 * BLOCK;
// Elements for which it is worth to wake a thread.
constexpr int64_t THREAD = 1 << 15;

struct Settings {  // the mirror of cpu._Settings
    double beta1, beta2, beta3, eps, weight_decay, clip, lr;
    double weight_low, weight_high, ratio_low, ratio_high;
    int32_t bias_correction, layer_adaptation, skip, threads;
};

struct Table {
    int64_t count;
    const int64_t* rows;

    int64_t elements(int64_t tensor) const { return rows[tensor]; }
    template <class T>
    T* address(int row, int64_t tensor) const { return reinterpret_cast<T*>(rows[row * count + tensor]); }
    int64_t total() const {
        int64_t sum = 0;
        for (int64_t tensor = 0; tensor < count; ++tensor) sum += elements(tensor);
        return sum;
    }
};

enum Row { GRAD = 1, WEIGHT, EXP_AVG, EXP_AVG_SQ, STEP };

struct Squares {
    double weight = 0, update = 0;
};

struct Block {
    int64_t tensor, begin, end;  // elements of the tensor
    int64_t before;              // elements of all blocks before this one
};

struct Range {
    int64_t begin, end;
    Range share(int64_t number, int64_t of) const {
        const int64_t size = end - begin;
        return {begin + size * number / of, begin + size * (number + 1) / of};
    }
};

// Tensors that are finished together, and their blocks.
struct Group {
    Range tensors, blocks;
};

struct Plan {
    std::vector<Block> blocks;
    std::vector<Group> groups;

    Plan(const Table& table, int64_t group_elements) {
        int64_t elements = 0, before = 0;
        for (int64_t tensor = 0; tensor < table.count; ++tensor) {
            const int64_t size = table.elements(tensor);
            if (elements + size > group_elements || groups.empty()) {
                groups.push_back({{tensor, tensor}, {int64_t(blocks.size()), 0}});
                elements = 0;
            }
            elements += size;
            for (int64_t begin = 0; begin < size; begin += BLOCK)
                blocks.push_back({tensor, begin, std::min(begin + BLOCK, size), before + begin});
            before += size;
            groups.back().tensors.end = tensor + 1;
            groups.back().blocks.end = int64_t(blocks.size());
        }
    }
};

int team(const Table& table, int threads) {
    return int(std::clamp<int64_t>(table.total() / THREAD, 1, std::max(threads, 1)));
}

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

// The loops. They are functions of their own because compilers honour __restrict for parameters alone.

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

template <class Math>
struct Moments {
    Math clip, beta1, beta2, beta3, rest2;

    explicit Moments(const Settings& s)
        : clip(s.clip), beta1(s.beta1), beta2(s.beta2), beta3(s.beta3), rest2(1 - s.beta2) {}
};

// u goes to `kept` [n] if `keep`.
template <class N, bool keep, class Stored = typename N::Stored, class Math = typename N::Math>
[[gnu::noinline]] Squares update(const Stored* __restrict grads, const Stored* __restrict weights,
                                 Stored* __restrict exp_avgs, Stored* __restrict exp_avg_sqs, Math* __restrict kept,
                                 int64_t n, Moments<Math> k, Direction<Math> direction) {
    double weight = 0, update = 0;
#pragma omp simd reduction(+ : weight, update)
    for (int64_t i = 0; i < n; ++i) {
        const Math g = k.clip * N::load(grads[i]);
        const Math w = N::load(weights[i]);
        // u follows from the moments as they are stored: the second pass may have no others.
        const Stored m = N::store(k.beta1 * N::load(exp_avgs[i]) + k.beta3 * g);
        const Stored v = N::store(k.beta2 * N::load(exp_avg_sqs[i]) + k.rest2 * (g * g));
        const Math u = direction(w, N::load(m), N::load(v));
        exp_avgs[i] = m;
        exp_avg_sqs[i] = v;
        if constexpr (keep) kept[i] = u;
        weight += double(w) * double(w);
        update += double(u) * double(u);
    }
    return {weight, update};
}

template <class N, class Stored = typename N::Stored, class Math = typename N::Math>
[[gnu::noinline]] void apply(Stored* __restrict weights, const Stored* __restrict exp_avgs,
                             const Stored* __restrict exp_avg_sqs, int64_t n, Math scale, Direction<Math> direction) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) {
        const Math w = N::load(weights[i]);
        weights[i] = N::store(w - scale * direction(w, N::load(exp_avgs[i]), N::load(exp_avg_sqs[i])));
    }
}

template <class N, class Stored = typename N::Stored, class Math = typename N::Math>
[[gnu::noinline]] void apply_kept(Stored* __restrict weights, const Math* __restrict kept, int64_t n, Math scale) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) weights[i] = N::store(N::load(weights[i]) - scale * kept[i]);
}

template <class N>
struct Kernel {
    using Stored = typename N::Stored;
    using Math = typename N::Math;

    const Table& table;
    const Settings& s;
    std::vector<Direction<Math>> directions;  // [T]

    Kernel(const Table& table, const Settings& s, bool advance) : table(table), s(s) {
        directions.reserve(table.count);
        for (int64_t tensor = 0; tensor < table.count; ++tensor) {
            float& step = *table.address<float>(STEP, tensor);
            if (advance && !s.skip) step += 1;
            directions.emplace_back(s, step);
        }
    }

    Stored* at(Row row, const Block& block) const { return table.address<Stored>(row, block.tensor) + block.begin; }

    // The first pass over a block; u goes to `kept`, unless that is null.
    Squares first(const Block& block, Math* kept = nullptr) const {
        const int64_t n = block.end - block.begin;
        Stored *const g = at(GRAD, block), *const w = at(WEIGHT, block), *const m = at(EXP_AVG, block),
                      *const v = at(EXP_AVG_SQ, block);
        if (s.skip) return {squares<N>(w, n), 0};
        const Moments<Math> moments(s);
        const Direction<Math>& direction = directions[block.tensor];
        return kept ? update<N, true>(g, w, m, v, kept, n, moments, direction)
                    : update<N, false>(g, w, m, v, kept, n, moments, direction);
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
};

// NaN stays NaN.
double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

struct Norms {
    double weight, update, ratio;

    Norms(const Squares& squares, const Settings& s)
        : weight(std::sqrt(squares.weight)), update(s.skip ? 0 : std::sqrt(squares.update)), ratio(1) {
        const double phi = clamp(weight, s.weight_low, s.weight_high);
        if (s.layer_adaptation && phi != 0 && update != 0) ratio = clamp(phi / update, s.ratio_low, s.ratio_high);
    }
};

std::vector<Squares> add_up(const Plan& plan, const Group& group, const std::vector<Squares>& parts) {
    std::vector<Squares> sums(group.tensors.end - group.tensors.begin);
    for (int64_t b = group.blocks.begin; b < group.blocks.end; ++b) {
        Squares& sum = sums[plan.blocks[b].tensor - group.tensors.begin];
        sum.weight += parts[b].weight;
        sum.update += parts[b].update;
    }
    return sums;
}

// Call visit(block number) for all blocks, each thread with a run of its own.
template <class Visit>
void for_blocks(const Plan& plan, int threads, Visit visit) {
#pragma omp parallel num_threads(threads)
    {
        const Range own = Range{0, int64_t(plan.blocks.size())}.share(omp_get_thread_num(), omp_get_num_threads());
        for (int64_t b = own.begin; b < own.end; ++b) visit(b);
    }
}

template <class N>
void sum_squares_all(const Table& table, int threads, double* out) {
    const Plan plan(table, INT64_MAX / 2);
    std::vector<Squares> parts(plan.blocks.size());
    for_blocks(plan, team(table, threads), [&](int64_t b) {
        const Block& block = plan.blocks[b];
        const auto* const x = table.address<typename N::Stored>(GRAD, block.tensor) + block.begin;
        parts[b].weight = squares<N>(x, block.end - block.begin);
    });
    const auto sums = add_up(plan, plan.groups.front(), parts);
    for (int64_t tensor = 0; tensor < table.count; ++tensor) out[tensor] = sums[tensor].weight;
}

template <class N>
void update_all(const Table& table, const Settings& s, double* out) {
    const Plan plan(table, INT64_MAX / 2);
    const Kernel<N> kernel(table, s, true);
    std::vector<Squares> parts(plan.blocks.size());
    for_blocks(plan, team(table, s.threads), [&](int64_t b) { parts[b] = kernel.first(plan.blocks[b]); });
    const auto sums = add_up(plan, plan.groups.front(), parts);
    for (int64_t tensor = 0; tensor < table.count; ++tensor) {
        out[tensor] = sums[tensor].weight;
        out[table.count + tensor] = sums[tensor].update;
    }
}

template <class N>
void apply_all(const Table& table, const Settings& s, const double* scale) {
    const Plan plan(table, INT64_MAX / 2);
    const Kernel<N> kernel(table, s, false);
    for_blocks(plan, team(table, s.threads),
               [&](int64_t b) { kernel.second(plan.blocks[b], scale[plan.blocks[b].tensor]); });
}

// Both passes, group by group. A thread walks its blocks forth and back, so that the last ones are still in cache, and
// keeps u for so many of them.
template <class N>
void step_all(const Table& table, const Settings& s, double* out) {
    const Plan plan(table, GROUP);
    const Kernel<N> kernel(table, s, true);
    std::vector<Squares> parts(plan.blocks.size());
#pragma omp parallel num_threads(team(table, s.threads))
    {
        using Math = typename N::Math;
        const std::unique_ptr<Math[]> room(new Math[std::min(KEPT, table.total())]);
        for (const Group& group : plan.groups) {
            const Range own = group.blocks.share(omp_get_thread_num(), omp_get_num_threads());
            const int64_t first_kept = std::max(own.begin, own.end - KEPT / BLOCK);
            const auto kept = [&](int64_t b) {
                return b < first_kept ? nullptr : &room[plan.blocks[b].before - plan.blocks[first_kept].before];
            };
            for (int64_t b = own.begin; b < own.end; ++b) parts[b] = kernel.first(plan.blocks[b], kept(b));
#pragma omp barrier
            std::vector<double> scales;
            for (const Squares& sum : add_up(plan, group, parts)) {
                const Norms norms(sum, s);
                if (omp_get_thread_num() == 0) {
                    double* const column = out + group.tensors.begin + int64_t(scales.size());
                    column[0] = norms.weight;
                    column[table.count] = norms.update;
                    column[2 * table.count] = norms.ratio;
                }
                scales.push_back(s.skip ? 0 : norms.ratio * s.lr);
            }
            for (int64_t b = own.end; b-- > own.begin;)
                kernel.second(plan.blocks[b], scales[plan.blocks[b].tensor - group.tensors.begin], kept(b));
        }
    }
}

// Call visit with the number kind that `dtype` stands for; the order is that of cpu._DTYPES.
template <class Visit>
void with_numbers(int dtype, Visit visit) {
    switch (dtype) {
        case 0: return visit(Native<float>{});
        case 1: return visit(Native<double>{});
        case 2: return visit(BFloat16{});
        case 3: return visit(Float16{});
    }
}

}  // namespace

extern "C" {

// Σx² of the tensors in the row of gradients: `out` [T].
void bigbatch_sum_squares(int dtype, int64_t count, const int64_t* rows, const Settings* s, double* out) {
    with_numbers(dtype, [&](auto numbers) { sum_squares_all<decltype(numbers)>({count, rows}, s->threads, out); });
}

// The first pass: `out` [2, T] becomes Σw² and Σu².
void bigbatch_update(int dtype, int64_t count, const int64_t* rows, const Settings* s, double* out) {
    with_numbers(dtype, [&](auto numbers) { update_all<decltype(numbers)>({count, rows}, *s, out); });
}

// The second pass: w -= scale·u with `scale` [T].
void bigbatch_apply(int dtype, int64_t count, const int64_t* rows, const Settings* s, const double* scale) {
    with_numbers(dtype, [&](auto numbers) { apply_all<decltype(numbers)>({count, rows}, *s, scale); });
}

// Both passes: `out` [3, T] becomes ‖w‖, ‖u‖ and the trust ratio.
void bigbatch_step(int dtype, int64_t count, const int64_t* rows, const Settings* s, double* out) {
    with_numbers(dtype, [&](auto numbers) { step_all<decltype(numbers)>({count, rows}, *s, out); });
}
}
