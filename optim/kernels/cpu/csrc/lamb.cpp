// The two passes of a LAMB step over many tensors, on the threads of the OpenMP that PyTorch has loaded.
//
// T = tensors of a call. Each fills one piece of memory, in the same order of elements as what belongs to it; all
// weights of a call have one dtype, and so have gradients and moments.

#include <omp.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <memory>
#include <type_traits>
#include <vector>

#include "kernels.h"

namespace {

// Elements that get their first pass before any gets its second, which then finds them in cache.
constexpr int64_t GROUP = 1 << 18;
// Elements of u that a thread keeps from the first pass for the second; beyond that it computes them again.
constexpr int64_t KEPT = 144 * BLOCK;

// NaN stays NaN.
double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

struct Norms {
    double weight, update, ratio, scale;

    Norms(const Squares& squares, const Call& call, int64_t tensor)
        : weight(std::sqrt(squares.weight)), update(call.skip() ? 0 : std::sqrt(squares.update)), ratio(1) {
        const Settings& s = call.settings[tensor];
        const double phi = clamp(weight, s.weight_low, s.weight_high);
        if (s.layer_adaptation && phi != 0 && update != 0) ratio = clamp(phi / update, s.ratio_low, s.ratio_high);
        scale = call.skip() ? 0 : ratio * call.lr[tensor];
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

// Call part() on each thread of a team. A thread has its own floating-point mode, and torch.set_flush_denormal changes
// that of its caller; with the caller's mode on all of them, the bits do not depend on how the work is shared.
template <class Part>
void on_team(int threads, Part part) {
    std::fenv_t callers;
    std::fegetenv(&callers);
#pragma omp parallel num_threads(threads)
    {
        std::fenv_t own;
        std::fegetenv(&own);
        std::fesetenv(&callers);
        part();
        std::fesetenv(&own);
    }
}

// A pass goes the other way than the one before it, so that what that one left in cache comes first.
enum Way { FORTH, BACK };

// Call visit(block number) for all blocks, each thread with a run of its own.
template <Way way, class Visit>
void for_blocks(const Plan& plan, int threads, Visit visit) {
    on_team(threads, [&] {
        const Range own = Range{0, int64_t(plan.blocks.size())}.share(omp_get_thread_num(), omp_get_num_threads());
        for (int64_t i = 0; i < own.end - own.begin; ++i) visit(way == FORTH ? own.begin + i : own.end - 1 - i);
    });
}

template <class N>
void sum_squares_all(const Table& table, int threads, double* out) {
    const Plan plan(table, INT64_MAX / 2, READ_BLOCK);
    std::vector<Squares> parts(plan.blocks.size());
    for_blocks<BACK>(plan, team(table, threads), [&](int64_t b) {
        const Block& block = plan.blocks[b];
        const auto* const x = table.address<typename N::Stored>(GRAD, block.tensor) + block.begin;
        parts[b].weight = squares<N>(x, block.end - block.begin);
    });
    const auto sums = add_up(plan, plan.groups.front(), parts);
    for (int64_t tensor = 0; tensor < table.count; ++tensor) out[tensor] = sums[tensor].weight;
}

template <class Kernel>
void update_all(const Table& table, const Call& call, double* out) {
    const Plan plan(table, INT64_MAX / 2);
    const Kernel kernel(table, call, true);
    std::vector<Squares> parts(plan.blocks.size());
    for_blocks<FORTH>(plan, team(table, call.threads), [&](int64_t b) { parts[b] = kernel.first(plan.blocks[b]); });
    const auto sums = add_up(plan, plan.groups.front(), parts);
    for (int64_t tensor = 0; tensor < table.count; ++tensor) {
        out[tensor] = sums[tensor].weight;
        out[table.count + tensor] = sums[tensor].update;
    }
}

template <class Kernel>
void apply_all(const Table& table, const Call& call, const double* scale) {
    const Plan plan(table, INT64_MAX / 2);
    const Kernel kernel(table, call, false);
    for_blocks<BACK>(plan, team(table, call.threads),
                     [&](int64_t b) { kernel.second(plan.blocks[b], scale[plan.blocks[b].tensor]); });
}

// One thread's part of a step.
template <class Kernel>
class Walk {
    using Math = typename Kernel::Math;

    const Plan& plan;
    const Kernel& kernel;
    std::vector<Squares>& parts;
    std::unique_ptr<Math[]> room;

   public:
    Walk(const Plan& plan, const Kernel& kernel, std::vector<Squares>& parts)
        : plan(plan), kernel(kernel), parts(parts), room(new Math[std::min(KEPT, kernel.table.total()) + BLOCK]) {}

    // Both passes over a group: forth and back, so that the last blocks are still in cache; u is kept for so many.
    void finish(const Group& group, double* out) {
        const Range own = group.blocks.share(omp_get_thread_num(), omp_get_num_threads());
        const int64_t first_kept = std::max(own.begin, own.end - KEPT / BLOCK);
        const auto kept = [&](int64_t b) {
            return b < first_kept ? nullptr : &room[BLOCK + plan.blocks[b].before - plan.blocks[first_kept].before];
        };
        for (int64_t b = own.begin; b < own.end; ++b) {
            if (is_adapted(b))
                parts[b] = kernel.first(plan.blocks[b], kept(b));
            else
                parts[b] = kernel.both(plan.blocks[b], kernel.call.lr[plan.blocks[b].tensor], room.get());
        }
#pragma omp barrier
        const std::vector<double> scales = ratios(group, out);
        for (int64_t b = own.end; b-- > own.begin;)
            if (const Block& block = plan.blocks[b]; is_adapted(b))
                kernel.second(block, scales[block.tensor - group.tensors.begin], kept(b));
    }

   private:
    bool is_adapted(int64_t b) const { return kernel.call.settings[plan.blocks[b].tensor].layer_adaptation != 0; }

    // Every thread computes them; the first one writes them down.
    std::vector<double> ratios(const Group& group, double* out) const {
        std::vector<double> scales;
        for (const Squares& sum : add_up(plan, group, parts)) {
            const int64_t tensor = group.tensors.begin + int64_t(scales.size()), count = kernel.table.count;
            const Norms norms(sum, kernel.call, tensor);
            scales.push_back(norms.scale);
            if (omp_get_thread_num() != 0) continue;
            out[tensor] = norms.weight;
            out[count + tensor] = norms.update;
            out[2 * count + tensor] = norms.ratio;
            out[3 * count + tensor] = norms.scale;
        }
        return scales;
    }
};

template <class Kernel>
void step_all(const Table& table, const Call& call, double* out) {
    const Plan plan(table, GROUP);
    const Kernel kernel(table, call, true);
    std::vector<Squares> parts(plan.blocks.size());
    on_team(team(table, call.threads), [&] {
        Walk<Kernel> walk(plan, kernel, parts);
        for (const Group& group : plan.groups) walk.finish(group, out);
    });
}

// Call visit with the number kind that a format stands for.
template <class Visit>
void with_numbers(int32_t format, Visit visit) {
    switch (format) {
        case FLOAT32: return visit(Native<float>{});
        case FLOAT64: return visit(Native<double>{});
        case BFLOAT16: return visit(BFloat16{});
        case FLOAT16: return visit(Float16{});
    }
}

// Call visit with a null pointer to the kernel that a call needs.
template <class Visit>
void with_kernel(const Call& call, Visit visit) {
    if (call.is_mixed()) return visit(static_cast<Mixed*>(nullptr));
    with_numbers(call.weights, [&](auto numbers) { visit(static_cast<Alike<decltype(numbers)>*>(nullptr)); });
}

template <class Pointer>
using Pointed = std::remove_pointer_t<Pointer>;

}  // namespace

extern "C" {

// Σx² of the tensors in the row of gradients: `out` [T].
void bigbatch_sum_squares(int64_t count, const int64_t* rows, const Call* call, double* out) {
    with_numbers(call->grads,
                 [&](auto numbers) { sum_squares_all<decltype(numbers)>({count, rows}, call->threads, out); });
}

// The first pass: `out` [2, T] becomes Σw² and Σu².
void bigbatch_update(int64_t count, const int64_t* rows, const Call* call, double* out) {
    with_kernel(*call, [&](auto kernel) { update_all<Pointed<decltype(kernel)>>({count, rows}, *call, out); });
}

// The second pass: w -= scale·u with `scale` [T].
void bigbatch_apply(int64_t count, const int64_t* rows, const Call* call, const double* scale) {
    with_kernel(*call, [&](auto kernel) { apply_all<Pointed<decltype(kernel)>>({count, rows}, *call, scale); });
}

// Both passes: `out` [4, T] becomes ‖w‖, ‖u‖, the trust ratio and scale.
void bigbatch_step(int64_t count, const int64_t* rows, const Call* call, double* out) {
    with_kernel(*call, [&](auto kernel) { step_all<Pointed<decltype(kernel)>>({count, rows}, *call, out); });
}
}
