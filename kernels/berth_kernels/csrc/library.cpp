// The library's C interface: a context with its threads and buffers, appending to the pool, attention over it, and linear
// layers.
//
// Threads are those of the OpenMP runtime that torch has in this process already: a second pool would fight the first
// one's for the cores. The runtime's entry point is handed in, so that any compiler will do and nothing is linked.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "berth.h"

namespace berth_generic { extern const Path path; }
#if defined(BERTH_X86)
namespace berth_avx2 { extern const Path path; }
namespace berth_avx512 { extern const Path path; }
#endif

namespace {

/// `GOMP_parallel` of GNU's OpenMP runtime, which LLVM's and Intel's offer too.
using Parallel = void (*)(void (*act)(void*), void* data, unsigned threads, unsigned flags);

constexpr int TILE_ROWS = 120;    // rows of a tile that share a block's layout; a multiple of the product's rows
constexpr int SPLIT_ROWS = 32;    // up to so many rows the chunks of a tile are tasks of their own
constexpr int TASKS_A_THREAD = 4;  // so that threads end at about the same time
constexpr int64_t COLUMN_STEP = 4;  // columns that a linear layer computes together
constexpr int64_t BLOCK_COLUMNS = 64, BLOCK_BYTES = 1 << 18;  // of weights that stay near while all rows pass by
constexpr int64_t SERIAL_BYTES = 1 << 15;  // less is copied sooner than threads are woken

/// The instruction sets compiled in and present, best first.
std::vector<const Path*> paths() {
    std::vector<const Path*> found;
#if defined(BERTH_X86)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        found.push_back(&berth_avx512::path);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back(&berth_avx2::path);
#endif
    found.push_back(&berth_generic::path);
    return found;
}

/// Memory that grows and is kept.
class Buffer {
  public:
    char* at_least(size_t bytes) {
        if (bytes > size_) {
            free(data_);
            size_ = (bytes + bytes / 4 + 4095) / 4096 * 4096;
            data_ = static_cast<char*>(aligned_alloc(4096, size_));
            if (!data_) size_ = 0, throw std::bad_alloc();
        }
        return data_;
    }
    ~Buffer() { free(data_); }

  private:
    char* data_ = nullptr;
    size_t size_ = 0;
};

int64_t over(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// Everything that stays from call to call. One thread calls at a time.
class Context {
  public:
    Context(const Path& path, int threads, Parallel parallel) : path_(path), threads_(threads), parallel_(parallel) {}

    void attend(const Call& call) {
        lay_out(call);
        size_t scratch = path_.scratch_bytes(call, widest_, call.kv_heads);
        char* scratches = scratch_.at_least(scratch * threads_);
        auto* partials = reinterpret_cast<float*>(partials_.at_least(partial_floats_ * sizeof(float)));
        std::atomic<int> threads{0};
        std::atomic<int64_t> tasks{0};
        each_thread(tasks_, [&] {
            char* own = scratches + scratch * threads++;
            for (int64_t task; (task = tasks++) < tasks_;) run(call, task, partials, own);
        });
    }

    void append(const Batch& batch, char* const pools[2], const char* const rows[2], const int64_t strides[2], int64_t bytes) {
        int64_t total = 0;
        for (int64_t i = 0; i < batch.count; i++) total += batch.segments[i].end - batch.segments[i].start;
        std::atomic<int64_t> next{0};
        constexpr int64_t STEP = 64;
        each_thread(total * bytes > SERIAL_BYTES ? over(total, STEP) : 1, [&] {
            for (int64_t low; (low = next.fetch_add(STEP)) < total;) append(batch, low, low + STEP, pools, rows, strides, bytes);
        });
    }

    void linear(const Linear& call) {
        int64_t row = call.depth * (call.half ? 2 : 4), fair = over(call.columns, TASKS_A_THREAD * threads_);
        int64_t block = over(std::clamp(std::min(BLOCK_BYTES / row, fair), int64_t{1}, BLOCK_COLUMNS), COLUMN_STEP) * COLUMN_STEP;
        bool small = call.rows * call.columns * row < SERIAL_BYTES;
        if (small) return path_.linear(call, 0, call.columns);
        std::atomic<int64_t> next{0};
        each_thread(over(call.columns, block), [&] {
            for (int64_t low; (low = next.fetch_add(block)) < call.columns;)
                path_.linear(call, low, std::min(low + block, call.columns));
        });
    }

  private:
    const Path& path_;
    const int threads_;
    const Parallel parallel_;
    Buffer scratch_, partials_;
    std::vector<Tile> tiles_;
    std::unique_ptr<std::atomic<int32_t>[]> left_;  // chunks that a part of a split tile still waits for
    size_t left_size_ = 0;
    int64_t tasks_ = 0;
    int32_t widest_ = 0, parts_ = 1;
    size_t partial_floats_ = 0;

    template <class Act> void each_thread(int64_t tasks, Act act) {
        if (threads_ == 1 || tasks == 1) return act();
        // Always the whole team: the runtime would end the threads that are left out, and start them anew.
        parallel_([](void* data) { (*static_cast<Act*>(data))(); }, &act, threads_, 0);
    }

    /// Cut the batch into tiles and count their tasks. How it is cut changes no result: see berth.h.
    void lay_out(const Call& call) {
        int32_t queries = std::max(1, TILE_ROWS / call.group());
        while (cut(call, queries) < 2 * threads_ && queries * call.group() > SPLIT_ROWS) queries = (queries + 1) / 2;
        int64_t units = 0, whole = 0;
        for (const Tile& tile : tiles_) {
            if (tile.split) units += tile.chunk_high - tile.chunk_low;
            else whole += call.kv_heads;
        }
        // Heads are parted as far as it takes to occupy the threads: together they read whole rows of the pool.
        int64_t wanted = over(std::max<int64_t>(0, TASKS_A_THREAD * threads_ - whole), std::max<int64_t>(1, units));
        parts_ = threads_ == 1 ? 1 : static_cast<int32_t>(std::clamp<int64_t>(wanted, 1, call.kv_heads));
        number(call);
    }

    /// Make the tiles; return how many works there are before anything is split.
    int64_t cut(const Call& call, int32_t queries) {
        tiles_.clear();
        for (int64_t i = 0; i < call.batch.count; i++) {
            const Segment& segment = call.batch.segments[i];
            // The last tile sees most keys: what takes longest begins first.
            for (int64_t at = over(segment.end - segment.start, queries) - 1; at >= 0; at--) {
                int64_t first = segment.start + at * queries;
                int64_t lowest = call.window ? std::max<int64_t>(0, first - call.window + 1) : 0;
                Tile tile{};
                tile.segment = i, tile.first = first, tile.row = segment.row + at * queries;
                tile.queries = static_cast<int32_t>(std::min<int64_t>(queries, segment.end - first));
                tile.chunk_low = static_cast<int32_t>(lowest / CHUNK_KEYS);
                tile.chunk_high = static_cast<int32_t>(over(first + tile.queries, CHUNK_KEYS));
                tile.split = tile.queries == 1 || tile.queries * call.group() <= SPLIT_ROWS;
                tiles_.push_back(tile);
            }
        }
        return static_cast<int64_t>(tiles_.size()) * call.kv_heads;
    }

    void number(const Call& call) {
        int64_t tasks = 0, left = 0;
        partial_floats_ = 0, widest_ = 1;
        for (Tile& tile : tiles_) {
            tile.task = tasks, tile.left = left, tile.partial = static_cast<int64_t>(partial_floats_);
            widest_ = std::max(widest_, tile.queries);
            if (tile.split) {
                int64_t chunks = tile.chunk_high - tile.chunk_low;
                tasks += chunks * parts_, left += parts_;
                partial_floats_ += chunks * call.kv_heads * path_.state_floats(call, tile.queries);
            } else {
                tasks += call.kv_heads;
            }
        }
        tasks_ = tasks;
        if (static_cast<size_t>(left) > left_size_) left_.reset(new std::atomic<int32_t>[left_size_ = 2 * left]);
        for (const Tile& tile : tiles_)
            for (int part = 0; tile.split && part < parts_; part++) left_[tile.left + part] = tile.chunk_high - tile.chunk_low;
    }

    void run(const Call& call, int64_t task, float* partials, char* scratch) {
        auto after = std::upper_bound(tiles_.begin(), tiles_.end(), task, [](int64_t t, const Tile& tile) { return t < tile.task; });
        const Tile& tile = *(after - 1);
        int32_t own = static_cast<int32_t>(task - tile.task);
        if (!tile.split) return path_.run({&call, &tile, tile.chunk_low, tile.chunk_high, own, own + 1, nullptr, scratch});
        int32_t chunk = own / parts_, part = own % parts_;
        int32_t low = part * call.kv_heads / parts_, high = (part + 1) * call.kv_heads / parts_;
        size_t state = path_.state_floats(call, tile.queries);
        float* states = partials + tile.partial;
        path_.run({&call, &tile, tile.chunk_low + chunk, tile.chunk_low + chunk + 1, low, high,
                   states + (static_cast<size_t>(chunk) * call.kv_heads + low) * state, scratch});
        if (--left_[tile.left + part] == 0) path_.merge(call, tile, low, high, states);
    }

    static void append(const Batch& batch, int64_t low, int64_t high, char* const pools[2], const char* const rows[2],
                       const int64_t strides[2], int64_t bytes) {
        for (int64_t i = 0; i < batch.count; i++) {
            const Segment& segment = batch.segments[i];
            int64_t from = std::max({segment.start, segment.kept, segment.start + low - segment.row});
            int64_t to = std::min(segment.end, segment.start + high - segment.row);
            for (int64_t at = from; at < to; at++) {
                int64_t page = batch.pages[segment.page + at / batch.page_size], row = segment.row + at - segment.start;
                int64_t slot = page * batch.page_size + at % batch.page_size;
                for (int which = 0; which < 2; which++)
                    memcpy(pools[which] + slot * bytes, rows[which] + row * strides[which], bytes);
            }
        }
    }
};

}  // namespace

#define BERTH_API extern "C" __attribute__((visibility("default")))

/// Names of the paths that this machine can take, best first, with a space after each.
BERTH_API void berth_paths(char* names, size_t size) {
    names[0] = 0;
    for (const Path* path : paths()) {
        strncat(names, path->name, size - strlen(names) - 1);
        strncat(names, " ", size - strlen(names) - 1);
    }
}

/// Return a context of the path of that name, null if there is none.
BERTH_API void* berth_open(const char* name, int threads, void* parallel) {
    for (const Path* path : paths())
        if (!strcmp(path->name, name)) return new (std::nothrow) Context(*path, threads, reinterpret_cast<Parallel>(parallel));
    return nullptr;
}

BERTH_API void berth_close(void* context) { delete static_cast<Context*>(context); }

/// Copy rows of keys and values, `bytes` each and strides in bytes apart, to where the batch has its pages.
BERTH_API void berth_append(void* context, const Batch* batch, void* key_pool, void* value_pool, const void* key,
                            const void* value, int64_t key_stride, int64_t value_stride, int64_t bytes) {
    char* const pools[] = {static_cast<char*>(key_pool), static_cast<char*>(value_pool)};
    const char* const rows[] = {static_cast<const char*>(key), static_cast<const char*>(value)};
    const int64_t strides[] = {key_stride, value_stride};
    static_cast<Context*>(context)->append(*batch, pools, rows, strides, bytes);
}

BERTH_API void berth_linear(void* context, const Linear* call) { static_cast<Context*>(context)->linear(*call); }

/// Return 0, or 1 when there is no memory.
BERTH_API int berth_attend(void* context, const Call* call) {
    try {
        static_cast<Context*>(context)->attend(*call);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
