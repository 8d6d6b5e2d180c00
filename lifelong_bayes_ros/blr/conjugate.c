/* The exact conjugate case in moments, for a few observations y = H t + e of many parameters.
 *
 * gaussian.py says what is computed, with torch. Of a covariance only the upper triangle is read
 * and written: moving it through memory is what takes longest. Everything is float64 and
 * C-contiguous; matrices of k rows of n lie with the long side along memory.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef double vec __attribute__((vector_size(32), aligned(8)));
typedef double long_vec __attribute__((vector_size(64), aligned(8)));

INLINE double dot(int64_t n, const double *a, const double *b)
{
    vec sums[4] = {{0}}; /* side by side, so that none waits for another */
    int64_t f = 0;
    for (; f + 16 <= n; f += 16)
        for (int l = 0; l < 4; l++)
            sums[l] += *(const vec *)(a + f + 4 * l) * *(const vec *)(b + f + 4 * l);
    for (; f + 4 <= n; f += 4)
        sums[0] += *(const vec *)(a + f) * *(const vec *)(b + f);
    vec all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    double sum = (all[0] + all[1]) + (all[2] + all[3]);
    for (; f < n; f++)
        sum += a[f] * b[f];
    return sum;
}

/* The lower triangle is made that of a symmetric matrix. */
void conjugate_mirror(int64_t n, double *covariance)
{
    enum { TILE = 16 };
    for (int64_t a = 0; a < n; a += TILE)
        for (int64_t b = 0; b <= a; b += TILE)
            for (int64_t i = a; i < n && i < a + TILE; i++)
                for (int64_t j = b; j < i && j < b + TILE; j++)
                    covariance[i * n + j] = covariance[j * n + i];
}

/* H S [k][n]. H is full of zeros where outputs share no parameters: it is read as runs of columns
 * that belong to one output, and of columns that belong to several. */
static void gain_of(int64_t n, int64_t k, const double *covariance, const double *design,
                    double *gain)
{
    enum { NONE = -2, MANY = -1, LINE = 64 / sizeof(double) };
    int64_t begin[n], end[n], of[n], runs = 0, next = 0, wide = (k + 3) / 4;
    vec turned[n][wide]; /* H' */
    memset(turned, 0, sizeof(turned));
    for (int64_t j = 0; j < n; j++) {
        int64_t owner = NONE;
        for (int64_t o = 0; o < k; o++) {
            double h = design[o * n + j];
            turned[j][o / 4][o % 4] = h;
            if (h != 0)
                owner = owner == NONE ? o : MANY;
        }
        if (runs && of[runs - 1] == owner && end[runs - 1] == j)
            end[runs - 1] = j + 1;
        else if (owner != NONE) {
            begin[runs] = j;
            of[runs] = owner;
            end[runs++] = j + 1;
        }
    }
    memset(gain, 0, sizeof(double) * k * n);
    for (int64_t i = 0; i < n; i++) {
        const double *row = covariance + i * n;
        /* At the end of a triangle's row the processor does not see where to read on. */
        for (int64_t j = i + 2; i + 2 < n && j < n; j += LINE)
            __builtin_prefetch(row + 2 * n + j);
        vec own[wide];
        memset(own, 0, sizeof(own));
        while (next < runs && end[next] <= i + 1)
            next++;
        for (int64_t r = next; r < runs; r++) {
            int64_t o = of[r], from = begin[r] > i ? begin[r] : i + 1;
            if (o == MANY)
                for (int64_t j = from; j < end[r]; j++)
                    for (int64_t v = 0; v < wide; v++)
                        own[v] += row[j] * turned[j][v];
            else
                own[o / 4][o % 4] += dot(end[r] - from, row + from, design + o * n + from);
        }
        for (int64_t o = 0; o < k; o++) {
            double by = design[o * n + i], *sum = gain + o * n;
            sum[i] += own[o / 4][o % 4];
            if (by != 0)
                for (int64_t j = i; j < n; j++)
                    sum[j] += by * row[j];
        }
    }
}

/* Predictive of y: H S [k][n], mean H m [k], H S H' [k][k], and L^-1 [k][k] of
 * H S H' + R = L L'. Returns 0, or 1 if the predictive is not positive definite. */
int32_t conjugate_predict(int64_t n, int64_t k, const double *mean, const double *covariance,
                          const double *design, const double *noise, double *gain,
                          double *predicted, double *epistemic, double *inverse)
{
    double chol[k * k];
    gain_of(n, k, covariance, design, gain);
    for (int64_t i = 0; i < k; i++) {
        predicted[i] = dot(n, design + i * n, mean);
        for (int64_t j = 0; j <= i; j++)
            epistemic[i * k + j] = epistemic[j * k + i] = dot(n, design + i * n, gain + j * n);
    }
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j <= i; j++) {
            double left = epistemic[i * k + j] + (i == j ? noise[i] : 0);
            for (int64_t f = 0; f < j; f++)
                left -= chol[i * k + f] * chol[j * k + f];
            if (i == j && !(left > 0))
                return 1;
            chol[i * k + j] = i == j ? sqrt(left) : left / chol[j * k + j];
        }
    for (int64_t j = 0; j < k; j++)
        for (int64_t i = 0; i < k; i++) {
            double left = i == j;
            for (int64_t f = j; f < i; f++)
                left -= chol[i * k + f] * inverse[f * k + j];
            inverse[i * k + j] = i < j ? 0 : left / chol[i * k + i];
        }
    return 0;
}

/* out = in + share (towards - in), all [n][n], in the upper triangle; `out` may be `in`. */
void conjugate_widen(int64_t n, double share, const double *in, const double *towards, double *out)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = i * n + i; j < (i + 1) * n; j++)
            out[j] = in[j] + share * (towards[j] - in[j]);
}

/* out = in - half' half in `rows` rows from i on, from column i on. Loops over the constants
 * `rows` and `k` unroll. `out` is `in` or far from it. */
INLINE void downdate_rows(int64_t n, int64_t k, int64_t rows, const double *half, int64_t i,
                          const double *in, double *out)
{
    double own[rows * k];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t f = 0; f < k; f++)
            own[r * k + f] = half[f * n + i + r];
    int64_t j = i;
    for (; j + 8 <= n; j += 8) {
        long_vec left[rows];
        for (int64_t r = 0; r < rows; r++)
            left[r] = *(const long_vec *)(in + (i + r) * n + j);
        for (int64_t f = 0; f < k; f++)
            for (int64_t r = 0; r < rows; r++)
                left[r] -= own[r * k + f] * *(const long_vec *)(half + f * n + j);
        for (int64_t r = 0; r < rows; r++)
            *(long_vec *)(out + (i + r) * n + j) = left[r];
    }
    for (; j < n; j++)
        for (int64_t r = 0; r < rows; r++) {
            double left = in[(i + r) * n + j];
            for (int64_t f = 0; f < k; f++)
                left -= own[r * k + f] * half[f * n + j];
            out[(i + r) * n + j] = left;
        }
}

INLINE void downdate(int64_t n, int64_t k, const double *half, const double *in, double *out)
{
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) /* each piece of `half` is read for four rows at once */
        downdate_rows(n, k, 4, half, i, in, out);
    for (; i < n; i++)
        downdate_rows(n, k, 1, half, i, in, out);
}

/* Posterior mean [n] and covariance [n][n] after y, of which `residual` [k] = y - H m is left.
 * `covariance_out` may be `covariance`. Scratch: half [k][n]. */
void conjugate_condition(int64_t n, int64_t k, const double *mean, const double *covariance,
                         const double *gain, const double *inverse, const double *residual,
                         double *half, double *moved, double *covariance_out)
{
    memcpy(moved, mean, sizeof(double) * n);
    memset(half, 0, sizeof(double) * k * n);
    for (int64_t i = 0; i < k; i++) {
        double *row = half + i * n, white = 0;
        for (int64_t f = 0; f <= i; f++) {
            double c = inverse[i * k + f];
            white += c * residual[f];
            for (int64_t j = 0; j < n; j++)
                row[j] += c * gain[f * n + j];
        }
        for (int64_t j = 0; j < n; j++)
            moved[j] += white * row[j];
    }
    const double *left = covariance;
    int64_t done = 0;
    do { /* many outputs in passes, so that every loop unrolls */
        int64_t some = k - done < 16 ? k - done : 16;
        const double *rows = half + done * n;
        switch (some) {
#define CASE(K)                                      \
    case K:                                          \
        downdate(n, K, rows, left, covariance_out);  \
        break;
            CASE(0) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
            CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
        }
        left = covariance_out;
        done += some;
    } while (done < k);
}
