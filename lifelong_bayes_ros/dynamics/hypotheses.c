/* One step of the iterated extended Kalman filters of all hypotheses.
 *
 * hypotheses.py and curves.py do the same with numpy and say what is computed. Everything is
 * float64 and C-contiguous.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int32_t count, outputs, rank, latents; /* hypotheses, rows of H, columns of B, size of z */
    int32_t leads, rounds;                 /* latents that bend a family; looks at a curve */
    int32_t features, tails;               /* H = [I (x) phi' | T], T [outputs][tails] */
    double near;                           /* move of z below which there is no further look */
    double walk;                           /* covariance of z moved towards I at every step */
    double dof, temper, constant;          /* of the Student-t evidence: its value at 0, log det 0 */
    const double *straight, *bent;         /* [count][latents][rank], [count][monomials][rank] */
    const double *low, *high;              /* [count][leads] */
    const float *heads;                    /* B of the features [features][count][outputs][rank] */
    const double *ends;                    /* and of the rest [count][tails][rank] */
    const double *price;                   /* most nats that each pays per step [count] */
} family;

/* c(z) [rank] and its derivatives [latents][rank] of hypothesis s. The sizes r and k of rank and
 * latents are given apart, so that loops over constants unroll; see `CALL`. */
INLINE void touch(const family *f, int r, int k, int s, const double *z, double *restrict c,
                  double *restrict slope)
{
    int leads = f->leads, at = 0;
    int monomials = leads * (leads + 1) / 2 + leads * (leads + 1) * (leads + 2) / 6;
    const double *straight = f->straight + (int64_t)s * k * r;
    const double *bent = f->bent + (int64_t)s * monomials * r;
    double held[leads], free[leads]; /* free: 0 where z is held, for c no longer moves with it */
    memcpy(slope, straight, sizeof(double) * k * r);
    memset(c, 0, sizeof(double) * r);
    for (int i = 0; i < k; i++)
        for (int j = 0; j < r; j++)
            c[j] += z[i] * straight[i * r + j];
    for (int i = 0; i < leads; i++) {
        double low = f->low[s * leads + i], high = f->high[s * leads + i];
        held[i] = z[i] < low ? low : z[i] > high ? high : z[i];
        free[i] = held[i] == z[i];
    }
    for (int degree = 2; degree <= 3; degree++)
        for (int a = 0; a < leads; a++)
            for (int b = a; b < leads; b++)
                for (int d = degree == 2 ? leads - 1 : b; d < leads; d++) {
                    double last = degree == 2 ? 1.0 : held[d];
                    const double *row = bent + at++ * r;
                    double value = held[a] * held[b] * last;
                    double by_a = free[a] * held[b] * last, by_b = free[b] * held[a] * last;
                    double by_d = degree == 2 ? 0.0 : free[d] * held[a] * held[b];
                    for (int j = 0; j < r; j++) {
                        c[j] += value * row[j];
                        slope[a * r + j] += by_a * row[j];
                        slope[b * r + j] += by_b * row[j];
                        slope[d * r + j] += by_d * row[j];
                    }
                }
}

/* The same of all hypotheses */
void hypotheses_touch(const family *f, const double *z, double *c, double *slope)
{
    int r = f->rank, k = f->latents;
    for (int s = 0; s < f->count; s++)
        touch(f, r, k, s, z + s * k, c + s * r, slope + s * k * r);
}

/* What a step says of hypothesis s by the tangent of its curve at `at`: the error [outputs],
 * L^-1 H P [outputs][latents], L^-1 and H P H' [outputs][outputs] with S = L L'. */
INLINE void innovate(int o, int r, int k, const double *basis, const double *whole,
                     const double *noise, const double *z, const double *covariance,
                     const double *at, const double *c, const double *slope, double *error,
                     double *restrict half, double *inverse, double *epistemic)
{
    double turned[r][k], columns[o][k], spread[o][k], l[o][o];
    for (int j = 0; j < r; j++)
        for (int a = 0; a < k; a++)
            turned[j][a] = slope[a * r + j];
    memset(columns, 0, sizeof(columns));
    memset(spread, 0, sizeof(spread));
    for (int i = 0; i < o; i++) {
        error[i] = whole[i];
        for (int j = 0; j < r; j++) {
            error[i] -= basis[i * r + j] * c[j];
            for (int a = 0; a < k; a++)
                columns[i][a] += basis[i * r + j] * turned[j][a];
        }
        for (int b = 0; b < k; b++) {
            error[i] -= columns[i][b] * (z[b] - at[b]);
            for (int a = 0; a < k; a++)
                spread[i][a] += columns[i][b] * covariance[b * k + a];
        }
    }
    for (int i = 0; i < o; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int a = 0; a < k; a++)
                sum += spread[i][a] * columns[j][a];
            epistemic[i * o + j] = epistemic[j * o + i] = sum;
            sum += i == j ? noise[i] : 0.0;
            for (int m = 0; m < j; m++)
                sum -= l[i][m] * l[j][m];
            l[i][j] = i == j ? sqrt(sum) : sum / l[j][j];
        }
    memset(inverse, 0, sizeof(double) * o * o);
    for (int j = 0; j < o; j++) {
        inverse[j * o + j] = 1 / l[j][j];
        for (int i = j + 1; i < o; i++) {
            double sum = 0;
            for (int m = j; m < i; m++)
                sum += l[i][m] * inverse[m * o + j];
            inverse[i * o + j] = -sum / l[i][i];
        }
    }
    memset(half, 0, sizeof(double) * o * k);
    for (int i = 0; i < o; i++)
        for (int m = 0; m <= i; m++)
            for (int a = 0; a < k; a++)
                half[i * k + a] += inverse[i * o + m] * spread[m][a];
}

/* z = from + half' (inverse error), with white = inverse error; returns the largest move off
 * `at`. */
INLINE double step(int o, int k, const double *from, const double *at, const double *half,
                   const double *inverse, const double *error, double *white, double *z)
{
    double most = 0;
    for (int i = 0; i < o; i++) {
        white[i] = 0;
        for (int j = 0; j <= i; j++)
            white[i] += inverse[i * o + j] * error[j];
    }
    for (int a = 0; a < k; a++) {
        double moved = from[a];
        for (int i = 0; i < o; i++)
            moved += white[i] * half[i * k + a];
        double move = fabs(moved - at[a]);
        most = move > most ? move : most;
        z[a] = moved;
    }
    return most;
}

/* H B [count][outputs][rank] at a step; the features are multiplied in float32. */
static void columns_at(const family *f, const double *phi, const double *tangent, double *basis)
{
    int o = f->outputs, r = f->rank, wide = f->count * o * r;
    float sums[wide];
    memset(sums, 0, sizeof(sums));
    for (int i = 0; i < f->features; i++) {
        float by = phi[i];
        const float *row = f->heads + (int64_t)i * wide;
        for (int j = 0; j < wide; j++)
            sums[j] += by * row[j];
    }
    for (int s = 0; s < f->count; s++)
        for (int i = 0; i < o; i++) {
            double *to = basis + (s * o + i) * r;
            for (int j = 0; j < r; j++)
                to[j] = sums[(s * o + i) * r + j];
            for (int t = 0; t < f->tails; t++)
                for (int j = 0; j < r; j++)
                    to[j] += tangent[i * f->tails + t] * f->ends[(s * f->tails + t) * r + j];
        }
}

/* Probabilities [n] from log weights; returns the log of their sum. */
static double weigh(int n, const double *log_weight, double *weight)
{
    double top = log_weight[0], total = 0;
    for (int s = 1; s < n; s++)
        top = log_weight[s] > top ? log_weight[s] : top;
    for (int s = 0; s < n; s++)
        total += weight[s] = exp(log_weight[s] - top);
    for (int s = 0; s < n; s++)
        weight[s] /= total;
    return top + log(total);
}

/* Mean and variance [o] of a mixture of errors and variances [n][o] */
static void mix(int n, int o, const double *weight, const double *error, const double *variance,
                double *mean, double *spread)
{
    memset(mean, 0, sizeof(double) * o);
    memset(spread, 0, sizeof(double) * o);
    for (int s = 0; s < n; s++)
        for (int i = 0; i < o; i++)
            mean[i] += weight[s] * error[s * o + i];
    for (int s = 0; s < n; s++)
        for (int i = 0; i < o; i++) {
            double off = error[s * o + i] - mean[i];
            spread[i] += weight[s] * (variance[s * o + i] + off * off);
        }
}

INLINE void learn(const family *f, int o, int r, int k, const double *basis, const double *whole,
                  const double *noise, double *z, double *covariance, double *c, double *slope,
                  double *error, double *epistemic, double *evidence, double *left,
                  double *variance)
{
    int n = f->count;
    double half[n][o * k], inverse[n][o * o], white[n][o], now[n][k], seen[o], spread[o * o];
    double most = 0;
    for (int s = 0; s < n; s++) {
        double *e = error + s * o, *p = covariance + s * k * k, square = 0, log_det = 0;
        for (int a = 0; a < k; a++)
            for (int b = 0; b < k; b++)
                p[a * k + b] += f->walk * ((a == b) - p[a * k + b]);
        innovate(o, r, k, basis + s * o * r, whole, noise, z + s * k, p, z + s * k, c + s * r,
                 slope + s * k * r, e, half[s], inverse[s], spread);
        double move = step(o, k, z + s * k, z + s * k, half[s], inverse[s], e, white[s], now[s]);
        most = move > most ? move : most;
        for (int i = 0; i < o; i++) {
            epistemic[s * o + i] = spread[i * o + i];
            square += white[s][i] * white[s][i];
            log_det -= 2 * log(inverse[s][i * o + i]);
        }
        double heavy = (f->dof + o) * log1p(square / f->dof);
        evidence[s] = f->temper * (f->constant - 0.5 * log_det - 0.5 * heavy);
    }
    for (int round = 0; round < f->rounds && most >= f->near; round++) {
        most = 0;
        for (int s = 0; s < n; s++) {
            double at[k];
            memcpy(at, now[s], sizeof(at));
            touch(f, r, k, s, at, c + s * r, slope + s * k * r);
            innovate(o, r, k, basis + s * o * r, whole, noise, z + s * k, covariance + s * k * k,
                     at, c + s * r, slope + s * k * r, seen, half[s], inverse[s], spread);
            double move = step(o, k, z + s * k, at, half[s], inverse[s], seen, white[s], now[s]);
            most = move > most ? move : most;
        }
    }
    for (int s = 0; s < n; s++) {
        double *p = covariance + s * k * k;
        memcpy(z + s * k, now[s], sizeof(double) * k);
        touch(f, r, k, s, now[s], c + s * r, slope + s * k * r);
        for (int a = 0; a < k; a++)
            for (int i = 0; i < o; i++)
                for (int b = 0; b < k; b++)
                    p[a * k + b] -= half[s][i * k + a] * half[s][i * k + b];
        for (int j = 0; j < o; j++) { /* R S^-1 e and R - R S^-1 R */
            double sum = 0, squares = 0;
            for (int i = j; i < o; i++) {
                sum += inverse[s][i * o + j] * white[s][i];
                squares += inverse[s][i * o + j] * inverse[s][i * o + j];
            }
            left[s * o + j] = noise[j] * sum;
            variance[s * o + j] = noise[j] - noise[j] * noise[j] * squares;
        }
    }
}

/* Learns from a step with phi [features], T [outputs][tails] and y - H t0 `whole` [outputs].
 *
 * In and out: z [count][latents], its covariance, c(z), its slopes, and the log weights [count],
 * of which the largest is 0 afterwards. Out, of the mixture: mean error before the step, the
 * variance of H t, and the expected square of what is left of the error [outputs each]. Returns
 * its log evidence. */
double hypotheses_learn(const family *f, const double *phi, const double *tangent,
                        const double *whole, const double *noise, double *z, double *covariance,
                        double *c, double *slope, double *log_weight, double *residual,
                        double *epistemic, double *square)
{
    int n = f->count, o = f->outputs;
    double basis[n * o * f->rank], error[n * o], spread[n * o], left[n * o], variance[n * o];
    double evidence[n], weight[n], mean[o], top;
    columns_at(f, phi, tangent, basis);
#define CALL(R, K)                                                                             \
    learn(f, o, R, K, basis, whole, noise, z, covariance, c, slope, error, spread, evidence, \
          left, variance)
    if (f->rank == 8 && f->latents == 8) /* as pre-training makes them where enough may change */
        CALL(8, 8);
    else
        CALL(f->rank, f->latents);
    double was = weigh(n, log_weight, weight);
    mix(n, o, weight, error, spread, residual, epistemic);
    for (int s = 0; s < n; s++)
        log_weight[s] += evidence[s];
    double now = weigh(n, log_weight, weight);
    mix(n, o, weight, left, variance, mean, square);
    for (int i = 0; i < o; i++)
        square[i] += mean[i] * mean[i];
    for (int s = 0; s < n; s++) {
        double told = 0;
        for (int i = 0; i < o; i++)
            told += (whole[i] - error[s * o + i]) * (whole[i] - error[s * o + i]) / noise[i];
        told *= 0.5 * f->temper;
        log_weight[s] -= told < f->price[s] ? told : f->price[s];
    }
    top = log_weight[0];
    for (int s = 1; s < n; s++)
        top = log_weight[s] > top ? log_weight[s] : top;
    for (int s = 0; s < n; s++)
        log_weight[s] -= top;
    return now - was;
}

/* sum [size] += share c B', of the columns B of one hypothesis */
static void add_columns(int r, int size, const int32_t *used, const float *columns, double share,
                        const double *c, float *restrict sum)
{
    for (int i = 0; i < r; i++) {
        if (used[i] < 0)
            continue;
        const float *column = columns + (int64_t)used[i] * size;
        float by = share * c[i];
        for (int j = 0; j < size; j++)
            sum[j] += by * column[j];
    }
}

/* Mean of the mixture and draws from it, as deviations from the reference of all hypotheses.
 *
 * Given: `weights` [count], z, its covariance and c(z); the columns of every hypothesis that are
 * not empty, one after another, [..][size], and their numbers `used` [count][rank], or -1; standard
 * normal numbers [latents][draws]; up to which weight one is `negligible` for the mean. Hypotheses
 * are drawn systematically. Out: mean [size], and draws less that mean, [size][draws]. */
void hypotheses_draw(const family *f, int32_t size, int32_t draws, double negligible,
                     const double *weights, const double *z, const double *covariance,
                     const double *c, const int32_t *used, const float *columns,
                     const double *normal, double *mean, double *deviations)
{
    int r = f->rank, k = f->latents, chosen = 0, drawn = -1;
    double chol[k][k], at[k], coefficients[r], slope[k * r], edge = weights[0];
    float sum[size];
    for (int e = 0; e < draws; e++) {
        while (edge < (e + 0.5) / draws && chosen + 1 < f->count)
            edge += weights[++chosen];
        const double *p = covariance + chosen * k * k;
        for (int i = 0; i < k && drawn != chosen; i++)
            for (int j = 0; j <= i; j++) {
                double left = p[i * k + j];
                for (int m = 0; m < j; m++)
                    left -= chol[i][m] * chol[j][m];
                chol[i][j] = i == j ? sqrt(left) : left / chol[j][j];
            }
        drawn = chosen;
        for (int i = 0; i < k; i++) {
            at[i] = z[chosen * k + i];
            for (int j = 0; j <= i; j++)
                at[i] += chol[i][j] * normal[j * draws + e];
        }
        touch(f, r, k, chosen, at, coefficients, slope);
        memset(sum, 0, sizeof(sum));
        add_columns(r, size, used + chosen * r, columns, 1.0, coefficients, sum);
        for (int j = 0; j < size; j++)
            deviations[(int64_t)j * draws + e] = sum[j];
    }
    memset(sum, 0, sizeof(sum));
    for (int s = 0; s < f->count; s++)
        if (weights[s] > negligible)
            add_columns(r, size, used + s * r, columns, weights[s], c + s * r, sum);
    for (int j = 0; j < size; j++) {
        mean[j] = sum[j];
        for (int e = 0; e < draws; e++)
            deviations[(int64_t)j * draws + e] -= sum[j];
    }
}
