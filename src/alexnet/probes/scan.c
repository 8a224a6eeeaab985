// cc: -fno-math-errno -Wno-psabi
/* No square root needs errno; no vector leaves this file, so how it would is of no account. */

/* Distances of rows of float16 to a center and their products with queries, in one pass over the rows; see scan.py. */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
enum { LANES = 8, TILE = 4, AT_ONCE = 32 };

typedef float Vec __attribute__((vector_size(4 * LANES)));

INLINE Vec load(const float *from) {
  Vec value;
  memcpy(&value, from, sizeof value);
  return value;
}

INLINE float sum_of(Vec v) { return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7])); }

/* Exact: float32 has every value of float16. */
INLINE float widened(uint16_t half) {
  const uint32_t bits = (uint32_t)(half & 0x7fff) << 13;
  /* The bits of the exponent and below, read as float32, are 2^-112 of the value; less than 2^-14 they are no normal number,
     and slower. */
  float value;
  memcpy(&value, &bits, sizeof value);
  value *= 0x1p112f;
  return half & 0x8000 ? -value : value;
}

INLINE Vec widen(const uint16_t *from) {
#ifdef __F16C__
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from));
#else
  Vec value;
  for (int i = 0; i < LANES; i++) value[i] = widened(from[i]);
  return value;
#endif
}

/* One over the length, or 0 for a row of zeros. Sums in float32 have at most 16 squares a lane, so the length is off by less than
   10 * 2^-24 of itself. */
INLINE float inverse_length(const uint16_t *row, int64_t dim) {
  double sum = 0;
  for (int64_t first = 0; first < dim; first += 32 * LANES) {
    const int64_t end = first + 32 * LANES < dim ? first + 32 * LANES : dim;
    Vec a = {0}, b = {0};
    int64_t d = first;
    for (; d + 2 * LANES <= end; d += 2 * LANES) {
      const Vec x = widen(row + d), y = widen(row + d + LANES);
      a += x * x, b += y * y;
    }
    float rest = 0;
    for (; d < end; d++) rest += widened(row[d]) * widened(row[d]);
    sum += (double)sum_of(a) + sum_of(b) + rest;
  }
  return sum > 0 ? (float)(1 / sqrt(sum)) : 0;
}

/* The row less the center, into `to` unless that is NULL; returned: the sum of its squares. With `unit` the row is first brought
   to length 1, and has one more number at its end: 1 if it is all zeros, else 0. */
INLINE float center_row(const uint16_t *row, int64_t dim, int unit, const float *center, float *to) {
  const float scale = unit ? inverse_length(row, dim) : 1;
  Vec sums[4] = {{0}, {0}, {0}, {0}};
  float rest = 0;
  int64_t d = 0;
  for (; d + 4 * LANES <= dim; d += 4 * LANES)
    for (int i = 0; i < 4; i++) {
      const int64_t at = d + i * LANES;
      const Vec value = widen(row + at) * scale - load(center + at);
      if (to) memcpy(to + at, &value, sizeof value);
      sums[i] += value * value;
    }
  for (; d < dim; d++) {
    const float value = widened(row[d]) * scale - center[d];
    if (to) to[d] = value;
    rest += value * value;
  }
  if (unit) {
    const float value = (scale == 0) - center[dim];
    if (to) to[dim] = value;
    rest += value * value;
  }
  return sum_of(sums[0] + sums[1] + (sums[2] + sums[3])) + rest;
}

/* products[q * stride + r] of `num` <= 2 queries and `count` <= TILE rows. */
INLINE void multiply(const float *rows, int count, const float *queries, int num, int64_t dim, float *products,
                     int64_t stride) {
  Vec sums[2][TILE] = {{{0}}};
  float rest[2][TILE] = {{0}};
  int64_t d = 0;
  for (; d + LANES <= dim; d += LANES)
    for (int r = 0; r < count; r++) {
      const Vec x = load(rows + r * dim + d);
      for (int q = 0; q < num; q++) sums[q][r] += x * load(queries + q * dim + d);
    }
  for (; d < dim; d++)
    for (int r = 0; r < count; r++)
      for (int q = 0; q < num; q++) rest[q][r] += rows[r * dim + d] * queries[q * dim + d];
  for (int q = 0; q < num; q++)
    for (int r = 0; r < count; r++) products[q * stride + r] = sum_of(sums[q][r]) + rest[q][r];
}

/* rows: (n, dim) float16; center (D) and queries (num, D), D = dim + unit; norms (n), and products, (num, n), each query's
   `stride` after the one before. room: (n, D), where there are queries. */
void scan(const uint16_t *rows, int64_t n, int64_t dim, int64_t unit, const float *center, const float *queries, int64_t num,
          float *room, float *norms, float *products, int64_t stride) {
  const int64_t width = dim + unit;
  for (int64_t r = 0; r < n; r++)
    norms[r] = sqrtf(center_row(rows + r * dim, dim, unit != 0, center, num ? room + r * width : NULL));
  for (int64_t first = 0; first < num; first += AT_ONCE) { /* so many queries stay in the cache */
    const int64_t end = first + AT_ONCE < num ? first + AT_ONCE : num;
    for (int64_t r = 0; r < n; r += TILE)
      for (int64_t q = first; q < end; q += 2) {
        const float *x = room + r * width, *y = queries + q * width;
        float *to = products + q * stride + r;
        if (r + TILE <= n && q + 2 <= end)
          multiply(x, TILE, y, 2, width, to, stride);
        else /* where whole tiles end */
          multiply(x, n - r < TILE ? (int)(n - r) : TILE, y, end - q < 2 ? 1 : 2, width, to, stride);
      }
  }
}
