// cc: -fopenmp -fno-math-errno -fno-trapping-math
/* As in lrn.c. */

/* Convolutions of stride 1 with 3 x 3 or 5 x 5 kernels by Winograd's minimal filtering (Lavin and Gray 2015); see winograd.py.

   A tile of 6 x 6 inputs gives n x n outputs, n = 7 - kernel, by 36 products where the sum over the kernel needs 144 (n = 4) or
   100 (n = 2): y = A ((G w G') * (B d B')) A'. The matrices are those of the points 0, 1, -1, 1/2, -2 and infinity, which round
   least (with 2 and -2, or 1/2 and -1/2, errors are twice as large). B, and so all but the ends, is the same for both kernels.

   Batches are channels last. With P tiles, C channels and O outputs, in this order in memory:
   inputs (36, P, C), weights (36, O / PANEL, C / groups, PANEL), products (36, P, O). */

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#ifdef __AVX512F__
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
enum { SIDE = 6, POINTS = SIDE * SIDE, PANEL = 2 * LANES, ROWS = 6 };

typedef float Vec __attribute__((vector_size(4 * LANES)));

typedef struct {
  int64_t images, channels, outputs, height, width; /* of one call; of a map that is read */
  int64_t kernel, padding, groups, threads;         /* padding: zeros on each side of a map */
  int64_t weight_plane, in_plane, out_plane; /* floats from one of the 36 points to the next */
} Call;

INLINE Vec load(const float *from) {
  Vec value;
  memcpy(&value, from, sizeof value);
  return value;
}

INLINE void store(float *to, Vec value) { memcpy(to, &value, sizeof value); }

INLINE int64_t written(const Call *p, int64_t side) { return side + 2 * p->padding - p->kernel + 1; }

/* One dimension of G w G', B d B' and A y A'; elements are `step` apart. */

INLINE void spread_weights(Vec *to, int to_step, const Vec *w, int step, int kernel) {
  static const float points[] = {0, 1, -1, 0.5f, -2}, factors[] = {1, 1.f / 3, -1.f / 3, -16.f / 15, 1.f / 15};
  for (int i = 0; i < SIDE - 1; i++) {
    Vec sum = w[(kernel - 1) * step]; /* Horner's scheme */
    for (int j = kernel - 2; j >= 0; j--) sum = sum * points[i] + w[j * step];
    to[i * to_step] = factors[i] * sum;
  }
  to[(SIDE - 1) * to_step] = w[(kernel - 1) * step];
}

INLINE void spread_inputs(Vec *to, const Vec *d, int step) {
  const Vec d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  to[0] = (d0 + d4) + 1.5f * (d3 - d1) - 2 * d2;
  to[step] = (d4 - d1) + 0.5f * d2 + 2.5f * d3;
  to[2 * step] = (d4 + d1) - 2.5f * d2 + 0.5f * d3;
  to[3 * step] = (d4 - d2) + 2 * (d3 - d1);
  to[4 * step] = (d4 - d2) + 0.5f * (d1 - d3);
  to[5 * step] = (d1 + d5) + 1.5f * (d4 - d2) - 2 * d3;
}

INLINE void gather_outputs(Vec *to, int to_step, const Vec *p, int step, int n) {
  const Vec p0 = p[0], p1 = p[step], p2 = p[2 * step], p3 = p[3 * step], p4 = p[4 * step], p5 = p[5 * step];
  const Vec even = p1 + p2, odd = p1 - p2;
  to[0] = p0 + even + (p3 + p4);
  if (n == 2) {
    to[to_step] = odd + (0.5f * p3 - 2 * p4) + p5;
  } else {
    to[to_step] = odd + (0.5f * p3 - 2 * p4);
    to[2 * to_step] = even + (0.25f * p3 + 4 * p4);
    to[3 * to_step] = odd + (0.125f * p3 - 8 * p4) + p5;
  }
}

INLINE void spread_kernels(const Call *p, const float *weights, float *spread, int kernel) {
  const int64_t channels = p->channels / p->groups, size = kernel * kernel;
#pragma omp parallel for num_threads(p->threads) schedule(static)
  for (int64_t first = 0; first < p->outputs; first += LANES)
    for (int64_t c = 0; c < channels; c++) {
      float lanes[25][LANES];
      for (int64_t lane = 0; lane < LANES; lane++)
        for (int64_t i = 0; i < size; i++) lanes[i][lane] = weights[((first + lane) * channels + c) * size + i];
      Vec w[25], half[SIDE * 5], whole[POINTS];
      for (int i = 0; i < size; i++) w[i] = load(lanes[i]);
      for (int i = 0; i < kernel; i++) spread_weights(half + i, kernel, w + i, kernel, kernel);
      for (int i = 0; i < SIDE; i++) spread_weights(whole + i * SIDE, 1, half + i * kernel, 1, kernel);
      float *to = spread + (first / PANEL * channels + c) * PANEL + first % PANEL;
      for (int i = 0; i < POINTS; i++) store(to + i * p->weight_plane, whole[i]);
    }
}

/* weights (outputs, channels / groups, kernel, kernel) -> spread */
void spread(const Call *p, const float *weights, float *spread) {
  if (p->kernel == 3) spread_kernels(p, weights, spread, 3);
  else spread_kernels(p, weights, spread, 5);
}

INLINE void read_tile(const Call *p, const float *x, int64_t top, int64_t left, float *to) {
  for (int64_t c = 0; c < p->channels; c += LANES) {
    Vec tile[POINTS];
    for (int64_t i = 0; i < SIDE; i++)
      for (int64_t j = 0; j < SIDE; j++) {
        const int64_t row = top + i, column = left + j;
        const int inside = row >= 0 && row < p->height && column >= 0 && column < p->width;
        tile[i * SIDE + j] = inside ? load(x + (row * p->width + column) * p->channels + c) : (Vec){0};
      }
    for (int j = 0; j < SIDE; j++) spread_inputs(tile + j, tile + j, SIDE);
    for (int i = 0; i < SIDE; i++) {
      spread_inputs(tile + i * SIDE, tile + i * SIDE, 1);
      for (int j = 0; j < SIDE; j++) store(to + (i * SIDE + j) * p->in_plane + c, tile[i * SIDE + j]);
    }
  }
}

INLINE void write_tile(const Call *p, const float *from, const float *bias, float *y, int64_t top, int64_t left, int n) {
  const int64_t height = written(p, p->height), width = written(p, p->width);
  for (int64_t o = 0; o < p->outputs; o += LANES) {
    Vec half[4 * SIDE], whole[16], tile[POINTS];
    for (int i = 0; i < POINTS; i++) {
      tile[i] = load(from + i * p->out_plane + o);
      __builtin_prefetch(from + i * p->out_plane + o + 48); /* the processor does not follow 36 streams by itself */
    }
    for (int j = 0; j < SIDE; j++) gather_outputs(half + j, SIDE, tile + j, SIDE, n);
    for (int i = 0; i < n; i++) gather_outputs(whole + i * n, 1, half + i * SIDE, 1, n);
    const Vec shift = load(bias + o);
    for (int64_t i = 0; i < n && top + i < height; i++)
      for (int64_t j = 0; j < n && left + j < width; j++)
        store(y + ((top + i) * width + left + j) * p->outputs + o, whole[i * n + j] + shift);
  }
}

/* ROWS rows of PANEL products, in registers. */
INLINE void multiply_block(const float *a, int64_t a_step, const float *panel, int64_t depth, float *to, int64_t to_step) {
  Vec sums[ROWS][2] = {0};
  for (int64_t k = 0; k < depth; k++) {
    const Vec left = load(panel + k * PANEL), right = load(panel + k * PANEL + LANES);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++) {
      sums[r][0] += a[r * a_step + k] * left;
      sums[r][1] += a[r * a_step + k] * right;
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < ROWS; r++) {
    store(to + r * to_step, sums[r][0]);
    store(to + r * to_step + LANES, sums[r][1]);
  }
}

INLINE void convolve_tiles(const Call *p, const float *x, const float *spread, const float *bias, float *y, float *inputs,
                           float *products, int n) {
  const int64_t height = written(p, p->height), width = written(p, p->width);
  const int64_t down = (height + n - 1) / n, across = (width + n - 1) / n, all = p->images * down * across;
  const int64_t in_image = p->height * p->width * p->channels, out_image = height * width * p->outputs;
  const int64_t depth = p->channels / p->groups;
  const int64_t panels = p->outputs / PANEL, panels_in_group = panels / p->groups;
#pragma omp parallel num_threads(p->threads)
  {
#pragma omp for schedule(static)
    for (int64_t t = 0; t < all; t++) {
      const int64_t image = t / (down * across), top = t / across % down * n, left = t % across * n;
      read_tile(p, x + image * in_image, top - p->padding, left - p->padding, inputs + t * p->channels);
    }
#pragma omp for schedule(static)
    for (int64_t job = 0; job < POINTS * panels; job++) {
      const int64_t point = job / panels, panel = job % panels;
      const float *a = inputs + point * p->in_plane + panel / panels_in_group * depth;
      const float *w = spread + point * p->weight_plane + panel * depth * PANEL;
      float *to = products + point * p->out_plane + panel * PANEL;
      for (int64_t t = 0; t < all; t += ROWS) /* rows behind the last tile are computed too, and never read */
        multiply_block(a + t * p->channels, p->channels, w, depth, to + t * p->outputs, p->outputs);
    }
#pragma omp for schedule(static)
    for (int64_t t = 0; t < all; t++) {
      const int64_t image = t / (down * across), top = t / across % down * n, left = t % across * n;
      write_tile(p, products + t * p->outputs, bias, y + image * out_image, top, left, n);
    }
  }
}

/* x (images, height, width, channels) -> y (images, height + 2 padding - kernel + 1, .., outputs). inputs and products have room
   for the tiles of all images, rounded up to a multiple of ROWS. */
void convolve(const Call *p, const float *x, const float *spread, const float *bias, float *y, float *inputs,
              float *products) {
  if (p->kernel == 3) convolve_tiles(p, x, spread, bias, y, inputs, products, 4);
  else convolve_tiles(p, x, spread, bias, y, inputs, products, 2);
}
