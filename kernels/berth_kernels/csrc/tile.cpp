// Attention of a tile of queries over chunks of keys: flash attention (Dao et al. 2022), one key/value head at a time.
//
// The query heads of a group are rows of one matrix, so a decode is a small prefill. A block's keys are transposed and
// its values laid out once for all rows; both products are then the same small matrix product. Each chunk of keys has a
// state of its own (a row's maximum, sum, and weighted values), and states are added up in the order of the chunks,
// whether one thread made them or many. No row's arithmetic depends on what other rows there are. Scores are in units
// of log 2.

#include "berth.h"
#include "math.h"
#include "vec.h"

#include <type_traits>

namespace BERTH_PATH {

constexpr float LOG2_E = 1.44269504089f;

inline int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

/// A row's maximum and sum, and its weighted values so far.
struct State {
    float *largest, *sum, *out;
    int columns;

    State(float* at, int rows, int dim) : largest(at), sum(at + rows), out(at + up(2 * rows, 16)), columns(up(dim, LANES)) {}

    static size_t floats(int rows, int dim) { return up(2 * rows, 16) + static_cast<size_t>(rows) * up(up(dim, LANES), 16); }

    void clear(int rows) {
        for (int row = 0; row < rows; row++) largest[row] = -__builtin_inff(), sum[row] = 0.0f;
        memset(out, 0, sizeof(float) * rows * columns);
    }

    void scale_row(int row, float by) {
        float* values = out + static_cast<size_t>(row) * columns;
        for (int at = 0; at < columns; at += LANES) write(values + at, read<Floats>(values + at) * spread(by));
    }

    /// Add the state of later keys.
    void add(const State& later, int rows) {
        for (int row = 0; row < rows; row++) {
            if (later.sum[row] == 0.0f) continue;  // it saw no key
            float top = largest[row] > later.largest[row] ? largest[row] : later.largest[row];
            float mine = sum[row] == 0.0f ? 0.0f : exp2_of(largest[row] - top), theirs = exp2_of(later.largest[row] - top);
            largest[row] = top;
            sum[row] = sum[row] * mine + later.sum[row] * theirs;
            float* to = out + static_cast<size_t>(row) * columns;
            const float* from = later.out + static_cast<size_t>(row) * columns;
            for (int at = 0; at < columns; at += LANES)
                write(to + at, read<Floats>(to + at) * spread(mine) + read<Floats>(from + at) * spread(theirs));
        }
    }
};

/// A thread's buffers for a work: as many queries and heads as given.
struct Scratch {
    int64_t* offsets;  // of a chunk's keys in the pool, in elements
    float *queries, *keys, *values, *scores, *weights, *zeros, *chunk, *total;
    size_t bytes = 0;

    Scratch(const Call& call, int count, int heads, char* base) : base_(base) {
        int rows = count * call.group(), columns = up(call.dim, LANES);
        offsets = reinterpret_cast<int64_t*>(take(CHUNK_KEYS * 2));
        queries = take(static_cast<size_t>(heads) * rows * call.dim);
        keys = take(static_cast<size_t>(columns) * BLOCK_KEYS);
        values = take(static_cast<size_t>(columns) * BLOCK_KEYS);
        scores = take(static_cast<size_t>(heads) * rows * BLOCK_KEYS);
        weights = take(static_cast<size_t>(heads) * rows * BLOCK_KEYS);
        zeros = take(call.dim);
        chunk = take(State::floats(rows, call.dim));
        total = take(State::floats(rows, call.dim));
    }

  private:
    char* base_;

    float* take(size_t floats) {
        char* at = base_ + bytes;
        bytes += (floats * sizeof(float) + 63) / 64 * 64;
        return reinterpret_cast<float*>(at);
    }
};

/// c (ROWS × VECTORS * LANES) += a (ROWS × depth) · b (depth × VECTORS * LANES); distances between rows in words.
template <class Math, int ROWS, int VECTORS>
inline void multiply_block(const float* a, int a_row, const float* b, int b_row, float* c, int c_row, int depth) {
    Floats sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) sum[row][v] = read<Floats>(c + row * c_row + v * LANES);
    for (int k = 0; k < depth; k++) {
        Floats right[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) right[v] = read<Floats>(b + k * b_row + v * LANES);
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++) {
            Floats left = spread_word(a + row * a_row + k);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[row][v] = Math::add(sum[row][v], left, right[v]);
        }
    }
#pragma GCC unroll 8
    for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) write(c + row * c_row + v * LANES, sum[row][v]);
}

template <class Math, int VECTORS>
void multiply_rows(int rows, const float* a, int a_row, const float* b, int b_row, float* c, int c_row, int depth) {
    int row = 0;
    for (; row + BLOCK_ROWS <= rows; row += BLOCK_ROWS)
        multiply_block<Math, BLOCK_ROWS, VECTORS>(a + row * a_row, a_row, b, b_row, c + row * c_row, c_row, depth);
    a += row * a_row, c += row * c_row;
    switch (rows - row) {
        case 5: return multiply_block<Math, 5, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 4: return multiply_block<Math, 4, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 3: return multiply_block<Math, 3, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 2: return multiply_block<Math, 2, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        case 1: return multiply_block<Math, 1, VECTORS>(a, a_row, b, b_row, c, c_row, depth);
        default: return;
    }
}

/// c (rows × columns) += a · b; `columns` is a multiple of LANES.
template <class Math>
void multiply(int rows, int columns, const float* a, int a_row, const float* b, int b_row, float* c, int c_row, int depth) {
    int at = 0;
    for (; at + BLOCK_VECTORS * LANES <= columns; at += BLOCK_VECTORS * LANES)
        multiply_rows<Math, BLOCK_VECTORS>(rows, a, a_row, b + at, b_row, c + at, c_row, depth);
    for (; at < columns; at += LANES) multiply_rows<Math, 1>(rows, a, a_row, b + at, b_row, c + at, c_row, depth);
}

/// The keys of a block that are there: lanes `low … high - 1` of it.
struct Block {
    int64_t begin;
    int low, high;
};

/// Asks for what is read next while this is computed: keys or values of a few positions, all heads, in the order of the
/// pool. The hardware cannot guess it, since pages lie anywhere and a head's rows far apart.
class Ahead {
  public:
    /// Begin with the rows of `bytes` each at `base` + `offsets` (elements of `size`), to be asked for in so many steps.
    void begin(const void* base, const int64_t* offsets, int rows, int size, int bytes, int steps) {
        base_ = static_cast<const char*>(base), offsets_ = offsets, rows_ = rows, size_ = size, bytes_ = bytes, at_ = 0;
        lines_ = (rows * ((bytes + LINE - 1) / LINE) + steps - 1) / steps;
    }

    void step() {
        int left = lines_;
        for (; rows_ && left; offsets_++, rows_--, at_ = 0) {
            const char* row = base_ + *offsets_ * size_;
            for (; at_ < bytes_ && left; at_ += LINE, left--) __builtin_prefetch(row + at_, 0, 2);
            if (at_ < bytes_) return;
        }
    }

  private:
    static constexpr int LINE = 64;
    const char* base_ = nullptr;
    const int64_t* offsets_ = nullptr;
    int rows_ = 0, size_ = 0, bytes_ = 0, at_ = 0, lines_ = 0;
};

template <class KV, class Math> class TileRun {
  public:
    explicit TileRun(const Work& work)
        : work_(work), call_(*work.call), tile_(*work.tile), dim_(call_.dim), group_(call_.group()),
          rows_(tile_.queries * group_), words_(Math::words(dim_)), columns_(up(dim_, LANES)),
          scratch_(call_, tile_.queries, work.head_high - work.head_low, work.scratch) {}

    void run() {
        for (int head = work_.head_low; head < work_.head_high; head++) lay_queries(head);
        memset(scratch_.zeros, 0, dim_ * sizeof(float));
        for (int chunk = work_.chunk_low; chunk < work_.chunk_high; chunk++) {
            for (int head = work_.head_low; head < work_.head_high; head++) state(head).clear(rows_);
            attend_chunk(chunk);
            if (!work_.partial) add_chunk(chunk == work_.chunk_low);
        }
    }

    State state(int head) const {
        float* at = work_.partial ? work_.partial + (head - work_.head_low) * State::floats(rows_, dim_) : scratch_.chunk;
        return State(at, rows_, dim_);
    }

    State total() const { return State(scratch_.total, rows_, dim_); }

  private:
    static constexpr int WIDTH = LANES * static_cast<int>(sizeof(float) / sizeof(typename Math::Weight));  // elements
    static constexpr int GROUP = 16;  // keys that a narrow tile reads of all heads before the next
    const Work& work_;
    const Call& call_;
    const Tile& tile_;
    const int dim_, group_, rows_, words_, columns_;
    const Scratch scratch_;

    float* queries(int head) const { return scratch_.queries + static_cast<size_t>(head - work_.head_low) * rows_ * words_; }

    void lay_queries(int head) const {
        for (int query = 0; query < tile_.queries; query++) {
            const KV* from = static_cast<const KV*>(call_.query) + (tile_.row + query) * call_.query_stride;
            for (int member = 0; member < group_; member++) {
                const KV* row = from + static_cast<int64_t>(head * group_ + member) * dim_;
                float* to = queries(head) + static_cast<size_t>(query * group_ + member) * words_;
                if constexpr (sizeof(KV) == sizeof(typename Math::Weight)) {
                    if (dim_ % 2) to[words_ - 1] = 0.0f;
                    memcpy(to, row, dim_ * sizeof(KV));
                } else {
                    for (int at = 0; at < dim_; at++) to[at] = widen(Halves{} + row[at])[0];
                }
            }
        }
    }

    void attend_chunk(int chunk) {
        int64_t begin = static_cast<int64_t>(chunk) * CHUNK_KEYS, last = tile_.first + tile_.queries;
        int64_t high = lesser(begin + CHUNK_KEYS, last);
        int64_t low = greater(begin, call_.window ? tile_.first - call_.window + 1 : 0);
        find_keys(begin, low, high);
        for (int64_t at = low / BLOCK_KEYS * BLOCK_KEYS; at < high; at += BLOCK_KEYS) {
            Block block{at, static_cast<int>(greater(low - at, 0)), static_cast<int>(lesser(high - at, BLOCK_KEYS))};
            const int64_t* offsets = scratch_.offsets + (at - begin);
            if (rows_ <= NARROW_ROWS) attend_narrow(block, offsets, at + BLOCK_KEYS < high);
            else for (int head = work_.head_low; head < work_.head_high; head++) attend_block(block, offsets, head);
        }
    }

    /// Fill `offsets` for the positions from `begin` on, whole blocks; a key that is not there stands as its neighbour.
    void find_keys(int64_t begin, int64_t low, int64_t high) const {
        const int32_t* pages = call_.batch.pages + call_.batch.segments[tile_.segment].page;
        int64_t size = call_.batch.page_size, element = static_cast<int64_t>(call_.kv_heads) * dim_;
        int64_t page = low / size, within = low % size;
        for (int64_t at = low; at < high; at++) {
            scratch_.offsets[at - begin] = (pages[page] * size + within) * element;
            if (++within == size) within = 0, page++;
        }
        for (int64_t at = low / BLOCK_KEYS * BLOCK_KEYS; at < low; at++)
            scratch_.offsets[at - begin] = scratch_.offsets[low - begin];
        for (int64_t at = high; at % BLOCK_KEYS; at++) scratch_.offsets[at - begin] = scratch_.offsets[high - 1 - begin];
    }

    const KV* keys(int head) const { return static_cast<const KV*>(call_.key) + static_cast<int64_t>(head) * dim_; }
    const KV* values(int head) const { return static_cast<const KV*>(call_.value) + static_cast<int64_t>(head) * dim_; }

    float* scores(int head) const { return scratch_.scores + static_cast<size_t>(head - work_.head_low) * rows_ * BLOCK_KEYS; }
    float* weights(int head) const { return scratch_.weights + static_cast<size_t>(head - work_.head_low) * rows_ * BLOCK_KEYS; }

    /// Of many rows: lay out keys and values once, then multiply.
    void attend_block(const Block& block, const int64_t* offsets, int head) {
        int seen = up(block.high, LANES);
        State to = state(head);
        lay_keys(keys(head), offsets, seen);
        memset(scores(head), 0, sizeof(float) * rows_ * BLOCK_KEYS);
        multiply<Math>(rows_, seen, queries(head), words_, scratch_.keys, BLOCK_KEYS, scores(head), BLOCK_KEYS, words_);
        for (int row = 0; row < rows_; row++) weigh(block, head, row, seen, to);
        lay_values(values(head), offsets, block);
        multiply<Math>(rows_, columns_, weights(head), Math::words(BLOCK_KEYS), scratch_.values, columns_, to.out, columns_,
                       Math::words(block.high));
    }

    /// Of few rows: read keys and values of all heads in the order of the pool, straight into the products.
    void attend_narrow(const Block& block, const int64_t* offsets, bool more) {
        int heads = work_.head_high - work_.head_low, seen = up(block.high, LANES), first = block.low / GROUP * GROUP;
        const KV *all_keys = keys(work_.head_low), *all_values = values(work_.head_low);
        const int size = sizeof(KV), bytes = heads * dim_ * size;
        Ahead ahead;
        for (int at = first; at < block.high; at += GROUP) {
            bool last = at + GROUP >= block.high;
            ahead.begin(last ? all_values : all_keys, offsets + (last ? first : at + GROUP), GROUP, size, bytes, heads * GROUP / LANES);
            for (int head = work_.head_low; head < work_.head_high; head++)
                for (int part = at; part < at + GROUP && part < seen; part += LANES) {
                    ahead.step();
                    by_rows([&](auto rows) { score<rows.value>(head, part, offsets); });
                }
        }
        for (int head = work_.head_low; head < work_.head_high; head++) {
            State to = state(head);
            for (int row = 0; row < rows_; row++) weigh(block, head, row, seen, to);
        }
        for (int at = first; at < block.high; at += GROUP) {
            bool last = at + GROUP >= block.high;
            ahead.begin(last ? all_keys : all_values, offsets + (last ? BLOCK_KEYS : at + GROUP), last && !more ? 0 : GROUP, size, bytes, heads);
            for (int head = work_.head_low; head < work_.head_high; head++) {
                ahead.step();
                by_rows([&](auto rows) { add_values<rows.value>(block, head, at, offsets); });
            }
        }
    }

    template <class Act> void by_rows(Act act) const {
        switch (rows_) {
            case 1: return act(std::integral_constant<int, 1>{});
            case 2: return act(std::integral_constant<int, 2>{});
            case 3: return act(std::integral_constant<int, 3>{});
            case 4: return act(std::integral_constant<int, 4>{});
#if defined(BERTH_PAIRS)
            case 5: return act(std::integral_constant<int, 5>{});
            case 6: return act(std::integral_constant<int, 6>{});
            case 7: return act(std::integral_constant<int, 7>{});
            case 8: return act(std::integral_constant<int, 8>{});
#endif
            default: return;
        }
    }

    /// The scores of LANES keys.
    template <int ROWS> BERTH_INLINE void score(int head, int first, const int64_t* offsets) const {
        const KV* from = keys(head);
        const float* left = queries(head);
        Floats sum[ROWS] = {};
        int at = 0;
        for (; at + WIDTH <= dim_; at += WIDTH, left += LANES) {
            Floats words[LANES];
            load_keys<true>(from, offsets + first, at, words);
#pragma GCC unroll 16
            for (int word = 0; word < LANES; word++)
#pragma GCC unroll 8
                for (int row = 0; row < ROWS; row++) sum[row] = Math::add(sum[row], spread_word(left + row * words_ + word), words[word]);
        }
        if (at < dim_) {
            Floats words[LANES];
            load_keys<false>(from, offsets + first, at, words);
            for (int word = 0; word < words_ - Math::words(at); word++)
                for (int row = 0; row < ROWS; row++) sum[row] = Math::add(sum[row], spread_word(left + row * words_ + word), words[word]);
        }
        for (int row = 0; row < ROWS; row++) write(scores(head) + row * BLOCK_KEYS + first, sum[row]);
    }

    /// Add the weighted values of GROUP keys.
    template <int ROWS> void add_values(const Block& block, int head, int first, const int64_t* offsets) const {
        const KV* rows[GROUP];
        for (int key = 0; key < GROUP; key++) {
            bool there = first + key >= block.low && first + key < block.high;
            rows[key] = there ? values(head) + offsets[first + key] : reinterpret_cast<const KV*>(scratch_.zeros);
        }
        constexpr int VECTORS = ROWS <= 4 ? BLOCK_VECTORS : BLOCK_VECTORS / 2;
        State to = state(head);
        int at = 0;
        for (; at + VECTORS * LANES <= dim_; at += VECTORS * LANES) add_columns<true, ROWS, VECTORS>(rows, head, first, at, to);
        for (; at < columns_; at += LANES) add_columns<false, ROWS, 1>(rows, head, first, at, to);
    }

    template <bool WHOLE, int ROWS, int VECTORS>
    BERTH_INLINE void add_columns(const KV* const* rows, int head, int first, int at, State& to) const {
        const float* left = weights(head) + Math::words(first);
        Floats sum[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) sum[row][v] = read<Floats>(to.out + row * columns_ + at + v * LANES);
        for (int key = 0; key < GROUP; key += Math::KEYS) {
            Floats right[VECTORS];
            Math::template values<WHOLE, VECTORS>(rows + key, at, dim_, right);
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; row++) {
                Floats weight = spread_word(left + row * Math::words(BLOCK_KEYS) + Math::words(key));
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; v++) sum[row][v] = Math::add(sum[row][v], weight, right[v]);
            }
        }
#pragma GCC unroll 8
        for (int row = 0; row < ROWS; row++)
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) write(to.out + row * columns_ + at + v * LANES, sum[row][v]);
    }

    /// Transpose the words of LANES keys from element `at` on.
    template <bool WHOLE> BERTH_INLINE void load_keys(const KV* keys, const int64_t* offsets, int at, Floats* words) const {
#pragma GCC unroll 16
        for (int key = 0; key < LANES; key++) words[key] = Math::template load<WHOLE>(keys + offsets[key] + at, dim_ - at);
        transpose(words);
    }

    /// A row a word of the dimension, a column a key.
    void lay_keys(const KV* keys, const int64_t* offsets, int seen) const {
        for (int first = 0; first < seen; first += LANES)
            for (int at = 0; at < dim_; at += WIDTH) {
                Floats words[LANES];
                at + WIDTH <= dim_ ? load_keys<true>(keys, offsets + first, at, words) : load_keys<false>(keys, offsets + first, at, words);
                float* to = scratch_.keys + static_cast<size_t>(Math::words(at)) * BLOCK_KEYS + first;
#pragma GCC unroll 16
                for (int word = 0; word < LANES; word++) write(to + word * BLOCK_KEYS, words[word]);
            }
    }

    void lay_values(const KV* values, const int64_t* offsets, const Block& block) const {
        float* to = scratch_.values;
        for (int key = 0; key < block.high; key += Math::KEYS) {
            const KV* rows[Math::KEYS];
            for (int own = 0; own < Math::KEYS; own++) {
                bool there = key + own >= block.low && key + own < block.high;
                rows[own] = there ? values + offsets[key + own] : reinterpret_cast<const KV*>(scratch_.zeros);
            }
            for (int at = 0; at < columns_; at += LANES, to += LANES) {
                Floats laid;
                Math::template values<false, 1>(rows, at, dim_, &laid);
                write(to, laid);
            }
        }
    }

    /// Turn a row's scores into weights, and lower what it has so far where its maximum rises.
    void weigh(const Block& block, int head, int row, int seen, State& to) const {
        int64_t position = tile_.first + row / group_;
        int low = block.low, high = static_cast<int>(lesser(block.high, position + 1 - block.begin));
        if (call_.window) low = static_cast<int>(greater(low, position - call_.window + 1 - block.begin));
        float* scores = this->scores(head) + static_cast<size_t>(row) * BLOCK_KEYS;
        auto* weights = reinterpret_cast<typename Math::Weight*>(this->weights(head)) + static_cast<size_t>(row) * BLOCK_KEYS;
        if (low >= high) {
            for (int at = 0; at < BLOCK_KEYS; at += LANES) Math::put(weights + at, Floats{});
            return;
        }
        const Floats scale = spread(call_.scale * LOG2_E), none = spread(-__builtin_inff());
        const bool whole = low == 0 && high == seen;
        Floats most = none;
        for (int at = 0; at < seen; at += LANES) {
            Floats score = read<Floats>(scores + at) * scale;
            if (!whole) {
                Ints lane = counting() + at;
                score = (lane >= low) & (lane < high) ? score : none;
            }
            write(scores + at, score);
            most = larger(score, most);
        }
        float found = largest_of(most), before = to.largest[row], top = found > before ? found : before;
        Floats sum{};
        for (int at = 0; at < seen; at += LANES) {
            Floats weight = exp2_of(read<Floats>(scores + at) - spread(top));
            sum += weight;
            Math::put(weights + at, weight);
        }
        // A narrow tile multiplies whole groups, beyond the last key by nothing.
        for (int at = seen; at < BLOCK_KEYS; at += LANES) Math::put(weights + at, Floats{});
        float by = to.sum[row] == 0.0f ? 1.0f : exp2_of(before - top);
        to.largest[row] = top;
        to.sum[row] = to.sum[row] * by + sum_of(sum);
        if (by != 1.0f) to.scale_row(row, by);
    }

    void add_chunk(bool first) const;
};

/// Write the finished rows of one key/value head.
template <class KV> void finish(const Call& call, const Tile& tile, int head, const State& state) {
    int group = call.group();
    for (int row = 0; row < tile.queries * group; row++) {
        int own = head * group + row % group;
        float top = state.largest[row], sum = state.sum[row], by = 1.0f;
        if (call.sinks) {
            float sink = call.sinks[own] * LOG2_E;
            if (sink > top) by = exp2_of(top - sink), top = sink;
            sum = sum * by + exp2_of(sink - top);
        }
        const float* from = state.out + static_cast<size_t>(row) * state.columns;
        KV* to = static_cast<KV*>(call.out) + ((tile.row + row / group) * call.heads + own) * call.dim;
        for (int at = 0; at < call.dim; at++) {
            float value = from[at] * (by / sum);
            if constexpr (sizeof(KV) == sizeof(bf16)) to[at] = to_bf16(value);
            else to[at] = value;
        }
    }
}

template <class KV, class Math> void TileRun<KV, Math>::add_chunk(bool first) const {
    if (first) memcpy(scratch_.total, scratch_.chunk, State::floats(rows_, dim_) * sizeof(float));
    else total().add(state(work_.head_low), rows_);
}

template <class KV, class Math> void run_as(const Work& work) {
    TileRun<KV, Math> tile(work);
    tile.run();
    if (!work.partial) finish<KV>(*work.call, *work.tile, work.head_low, tile.total());
}

void run(const Work& work) {
#if defined(BERTH_PAIRS)
    if (work.call->half) return run_as<bf16, Pairs>(work);
#else
    if (work.call->half) return run_as<bf16, Singles>(work);
#endif
    run_as<float, Singles>(work);
}

size_t state_floats(const Call& call, int queries) { return State::floats(queries * call.group(), call.dim); }

void merge(const Call& call, const Tile& tile, int head_low, int head_high, float* partials) {
    int rows = tile.queries * call.group();
    size_t size = State::floats(rows, call.dim);
    for (int head = head_low; head < head_high; head++) {
        State total(partials + head * size, rows, call.dim);
        for (int chunk = 1; chunk < tile.chunk_high - tile.chunk_low; chunk++)
            total.add(State(partials + (static_cast<size_t>(chunk) * call.kv_heads + head) * size, rows, call.dim), rows);
        if (call.half) finish<bf16>(call, tile, head, total);
        else finish<float>(call, tile, head, total);
    }
}

size_t scratch_bytes(const Call& call, int queries, int heads) { return Scratch(call, queries, heads, nullptr).bytes; }

void linear(const Linear&, int64_t low, int64_t high);

extern const Path path;
const Path path = {BERTH_NAME, scratch_bytes, state_floats, run, merge, linear};

}  // namespace BERTH_PATH
