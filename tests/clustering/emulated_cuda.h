// Runs slicfast/clustering/kernels.cu on a CPU: a block's threads are fibers that take turns at barriers and at
// operations of a warp. Fragments are laid out from the PTX ISA's tables, independently of the kernels. What CUDA
// leaves open is tried both ways: copies to shared memory take effect at once and the first warp runs ahead of the
// others as far as barriers let it, or copies take effect at the last moment and the last warp runs ahead.
#define SLICFAST_EMULATED
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define SHARED_MEMORY unsigned char* memory = emulated.shared.data()

struct Index3 {
    int x;
};

struct Copy {
    void* target;
    unsigned char bytes[16];
};

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    std::vector<std::vector<Copy>> groups{1};  // the last one is open
    bool is_done = false;
};

struct Warp {
    int arrived = 0, generation = 0;
    unsigned words[32][8];
    const unsigned char* addresses[32];
};

struct Emulated {
    std::vector<unsigned char> shared;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    int running = 0, arrived = 0, generation = 0;
    long long num_meetings = 0;
    bool is_late = false;
    std::vector<std::pair<const void*, const void*>> readable;  // what copies may read
    ucontext_t scheduler;
    std::function<void()> body;
} emulated;

Index3 threadIdx, blockIdx, blockDim;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "emulated CUDA: %s (block %d, thread %d)\n", what, blockIdx.x, emulated.running);
    std::abort();
}

inline void next_fiber() {
    const int self = emulated.running;
    swapcontext(&emulated.fibers[self].context, &emulated.scheduler);
}

inline void meet(int& arrived, int& generation, int num) {
    const int met = generation;
    if (++arrived == num) {
        arrived = 0;
        ++generation;
        ++emulated.num_meetings;
    }
    while (generation == met) next_fiber();
}

inline void __syncthreads() { meet(emulated.arrived, emulated.generation, blockDim.x); }
inline int this_lane() { return emulated.running & 31; }
inline Warp& this_warp() { return emulated.warps[emulated.running >> 5]; }
inline void sync_warp() { meet(this_warp().arrived, this_warp().generation, 32); }

inline void check_shared(const void* pointer, size_t num_bytes) {
    const auto* at = static_cast<const unsigned char*>(pointer);
    const auto* begin = emulated.shared.data();
    if (at < begin || at + num_bytes > begin + emulated.shared.size()) fail("outside shared memory");
    if ((at - begin) % 16) fail("shared memory is not aligned to 16 bytes");
}

inline void copy_async(void* target, const void* source, bool is_there) {
    check_shared(target, 16);
    if (reinterpret_cast<size_t>(source) % 16) fail("global memory is not aligned to 16 bytes");
    Copy copy{target, {}};
    if (is_there) {
        bool is_readable = false;
        for (auto [begin, end] : emulated.readable)
            is_readable |= source >= begin && static_cast<const char*>(source) + 16 <= end;
        if (!is_readable) fail("outside the arrays");
        std::memcpy(copy.bytes, source, 16);
    }
    if (emulated.is_late)
        emulated.fibers[emulated.running].groups.back().push_back(copy);
    else
        std::memcpy(target, copy.bytes, 16);
}

inline void end_copy_group() { emulated.fibers[emulated.running].groups.emplace_back(); }

template <int NUM_LEFT>
void wait_for_copies() {
    auto& groups = emulated.fibers[emulated.running].groups;
    while (groups.size() > NUM_LEFT + 1) {
        for (const Copy& copy : groups.front()) std::memcpy(copy.target, copy.bytes, 16);
        groups.erase(groups.begin());
    }
}

// ldmatrix.x4: lanes 8m to 8m + 7 name the rows of matrix m; lane l gets elements 2 (l % 4) and the next of row l / 4.
inline void load_matrices(unsigned (&fragment)[4], const void* row) {
    check_shared(row, 16);
    Warp& warp = this_warp();
    warp.addresses[this_lane()] = static_cast<const unsigned char*>(row);
    sync_warp();
    for (int matrix = 0; matrix < 4; ++matrix)
        std::memcpy(&fragment[matrix], warp.addresses[8 * matrix + this_lane() / 4] + 4 * (this_lane() % 4), 4);
    sync_warp();
}

inline float half_to_float(unsigned short bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float size = exponent ? std::ldexp(1024.0f + mantissa, exponent - 25) : std::ldexp(1.0f * mantissa, -24);
    return bits >> 15 ? -size : size;
}

inline float half_of(unsigned word, int which) { return half_to_float(static_cast<unsigned short>(word >> 16 * which)); }

// mma.m16n8k16, float16 in, float32 out.
// A: registers 0 to 3 hold rows g, g + 8, g, g + 8 and columns 2 t, 2 t, 2 t + 8, 2 t + 8 and the next, g = lane / 4, t = lane % 4.
// B: registers 0 and 1 hold column g and rows 2 t, 2 t + 8 and the next. C: rows g, g, g + 8, g + 8, columns 2 t, 2 t + 1, ...
inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    Warp& warp = this_warp();
    unsigned* words = warp.words[this_lane()];
    for (int i = 0; i < 4; ++i) words[i] = a[i];
    words[4] = b0;
    words[5] = b1;
    sync_warp();
    for (int i = 0; i < 4; ++i) {
        const int row = this_lane() / 4 + 8 * (i / 2), column = 2 * (this_lane() % 4) + i % 2;
        float total = sum[i];
        for (int k = 0; k < 16; ++k) {
            const unsigned left = warp.words[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)];
            const unsigned right = warp.words[column * 4 + k % 8 / 2][4 + k / 8];
            total += half_of(left, k % 2) * half_of(right, k % 2);
        }
        sum[i] = total;
    }
    sync_warp();
}

template <typename Word>
Word __shfl_xor_sync(unsigned, Word value, int apart) {
    static_assert(sizeof(Word) == 4);
    Warp& warp = this_warp();
    std::memcpy(&warp.words[this_lane()][0], &value, 4);
    sync_warp();
    std::memcpy(&value, &warp.words[this_lane() ^ apart][0], 4);
    sync_warp();
    return value;
}

inline void run_fiber() {
    emulated.body();
    emulated.fibers[emulated.running].is_done = true;
    next_fiber();
}

// One warp as far as it gets without the others; false once its threads have returned.
inline bool run_warp(int warp) {
    bool any;
    for (long long met = -1; met != emulated.num_meetings;) {
        met = emulated.num_meetings;
        any = false;
        for (int i = 32 * warp; i < 32 * warp + 32; ++i) {
            if (emulated.fibers[i].is_done) continue;
            any = true;
            emulated.running = threadIdx.x = i;
            swapcontext(&emulated.scheduler, &emulated.fibers[i].context);
        }
    }
    return any;
}

// Calls body() as every thread of every block; threads that have returned no longer take part.
inline void launch(int num_blocks, int num_threads, int shared_bytes, bool is_late, std::function<void()> body) {
    emulated.body = std::move(body);
    emulated.is_late = is_late;
    blockDim.x = num_threads;
    for (blockIdx.x = 0; blockIdx.x < num_blocks; ++blockIdx.x) {
        emulated.shared.assign(shared_bytes, 0xff);
        emulated.fibers = std::vector<Fiber>(num_threads);
        emulated.warps = std::vector<Warp>(num_threads / 32);
        emulated.arrived = 0;
        for (Fiber& fiber : emulated.fibers) {
            fiber.stack.reset(new char[65536]);
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.get();
            fiber.context.uc_stack.ss_size = 65536;
            makecontext(&fiber.context, run_fiber, 0);
        }
        for (bool any = true; any;) {
            any = false;
            for (int i = 0; i < num_threads / 32; ++i) any |= run_warp(is_late ? num_threads / 32 - 1 - i : i);
        }
    }
}

#include KERNELS

extern "C" void emulate_candidates(const unsigned short* queries, const unsigned short* keys, const float* bias,
                                   int num_queries, int num_keys, int dims, int exclude_same_row, long long* index,
                                   float* rest, int num_blocks, int shared_bytes, int is_late) {
    emulated.readable = {{queries, queries + static_cast<size_t>(num_queries) * dims},
                         {keys, keys + static_cast<size_t>(num_keys) * dims}};
    launch(num_blocks, THREADS, shared_bytes, is_late, [=] {
        candidates(queries, keys, bias, num_queries, num_keys, dims, exclude_same_row, index, rest);
    });
}

extern "C" void emulate_rescore(const float* queries, const float* keys, const float* bias, const long long* candidates,
                                const float* limit, int num_queries, int dims, long long* index, float* score,
                                unsigned char* is_open, int num_blocks, int num_threads, int is_late) {
    launch(num_blocks, num_threads, 0, is_late, [=] {
        rescore(queries, keys, bias, candidates, limit, num_queries, dims, index, score, is_open);
    });
}

extern "C" void emulate_segment_sums(const float* rows, const long long* order, const long long* ends, int dims,
                                     float* sums, int num_labels, int num_threads, int is_late) {
    launch(num_labels, num_threads, 4 * num_threads, is_late, [=] { segment_sums(rows, order, ends, dims, sums); });
}
