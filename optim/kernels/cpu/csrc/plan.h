// The tensors of a call, cut into blocks and groups.
#pragma once

#include <algorithm>
#include <vector>

#include "loops.h"
#include "moments.h"

// Sums are taken block by block and added in their order, so they do not depend on the number of threads.
constexpr int64_t BLOCK = 64 * SCALED;
// The same where tensors are only read: processors foresee long runs better.
constexpr int64_t READ_BLOCK = 4 * BLOCK;
// Elements for which it is worth to wake a thread.
constexpr int64_t THREAD = 1 << 15;

enum Format { FLOAT32, FLOAT64, BFLOAT16, FLOAT16, UINT8 };  // the order of FORMATS in call.py

struct Call {  // the mirror of _Call in call.py
    const double* clip;  // [3]: norm, factor, whether to skip
    const Settings* settings;  // [T]
    const double* lr;  // [T]
    int32_t weights, grads, moments;  // formats
    int32_t threads;

    bool skip() const { return clip && clip[2] != 0; }
    bool is_mixed() const { return weights != moments || weights != grads; }
};

// int64 [9, T]: elements and addresses, these in the order of `Operands.lists` behind the gradients.
enum Row { ELEMENTS, GRAD, WEIGHT, EXP_AVG, EXP_AVG_SQ, STEP, COPY, FIRST_SCALE, SECOND_SCALE };

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

    Plan(const Table& table, int64_t group_elements, int64_t block = BLOCK) {
        int64_t elements = 0, before = 0;
        for (int64_t tensor = 0; tensor < table.count; ++tensor) {
            const int64_t size = table.elements(tensor);
            if (elements + size > group_elements || groups.empty()) {
                groups.push_back({{tensor, tensor}, {int64_t(blocks.size()), 0}});
                elements = 0;
            }
            elements += size;
            for (int64_t begin = 0; begin < size; begin += block)
                blocks.push_back({tensor, begin, std::min(begin + block, size), before + begin});
            before += size;
            groups.back().tensors.end = tensor + 1;
            groups.back().blocks.end = int64_t(blocks.size());
        }
    }
};

inline int team(const Table& table, int threads) {
    return int(std::clamp<int64_t>(table.total() / THREAD, 1, std::max(threads, 1)));
}
