/* One step of the iterated extended Kalman filters of all hypotheses.
 *
 * hypotheses.py and curves.py do the same with numpy and say what is computed. Everything is
 * float64 and C-contiguous.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    int32_t count, outputs, rank, latents; /* hypotheses, rows of H, columns of B, size of z */
    int32_t leads, rounds;                 /* latents that bend a family; looks at a curve */
    double near;                           /* move of z below which there is no further look */
    const double *straight, *bent;         /* [count][latents][rank], [count][monomials][rank] */
    const double *low, *high;              /* [count][leads] */
} family;

/* c(z) [rank] and its derivatives [latents][rank] of hypothesis s */
static void touch(const family *f, int s, const double *z, double *c, double *slope)
{
    int r = f->rank, k = f->latents, leads = f->leads, at = 0;
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
    for (int s = 0; s < f->count; s++)
        touch(f, s, z + s * f->latents, c + s * f->rank, slope + s * f->latents * f->rank);
}

/* What a step says of hypothesis s by the tangent of its curve at `at`: the error [outputs],
 * L^-1 H P [outputs][latents], L^-1 and H P H' [outputs][outputs] with S = L L'. */
static void innovate(const family *f, const double *basis, const double *whole,
                     const double *noise, const double *z, const double *covariance,
                     const double *at, const double *c, const double *slope, double *error,
                     double *half, double *inverse, double *epistemic)
{
    int o = f->outputs, r = f->rank, k = f->latents;
    double columns[o][k], spread[o][k], l[o][o];
    for (int i = 0; i < o; i++) {
        double left = whole[i];
        for (int j = 0; j < r; j++)
            left -= basis[i * r + j] * c[j];
        for (int a = 0; a < k; a++) {
            double sum = 0;
            for (int j = 0; j < r; j++)
                sum += basis[i * r + j] * slope[a * r + j];
            columns[i][a] = sum;
            left -= sum * (z[a] - at[a]);
        }
        error[i] = left;
        for (int a = 0; a < k; a++) {
            double sum = 0;
            for (int b = 0; b < k; b++)
                sum += columns[i][b] * covariance[b * k + a];
            spread[i][a] = sum;
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
    for (int i = 0; i < o; i++)
        for (int a = 0; a < k; a++) {
            double sum = 0;
            for (int m = 0; m <= i; m++)
                sum += inverse[i * o + m] * spread[m][a];
            half[i * k + a] = sum;
        }
}

/* z = from + half' (inverse error), with white = inverse error; returns the largest move off
 * `at`. */
static double step(const family *f, const double *from, const double *at, const double *half,
                   const double *inverse, const double *error, double *white, double *z)
{
    int o = f->outputs, k = f->latents;
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

/* Learns from a step with H B `basis` [count][outputs][rank] and y - H t0 `whole` [outputs].
 *
 * In and out: z [count][latents], its covariance, and c(z) and its slopes. Out: what each
 * hypothesis predicted (error and variance of H t [count][outputs], squared distance and log
 * determinant [count]) and what is left of the error afterwards, with its variance. */
void hypotheses_learn(const family *f, const double *basis, const double *whole,
                      const double *noise, double *z, double *covariance, double *c,
                      double *slope, double *error, double *epistemic, double *square,
                      double *log_det, double *left, double *variance)
{
    int n = f->count, o = f->outputs, r = f->rank, k = f->latents;
    double half[n][o * k], inverse[n][o * o], white[n][o], now[n][k], seen[o], spread[o * o];
    double most = 0;
    for (int s = 0; s < n; s++) {
        double *e = error + s * o;
        innovate(f, basis + s * o * r, whole, noise, z + s * k, covariance + s * k * k, z + s * k,
                 c + s * r, slope + s * k * r, e, half[s], inverse[s], spread);
        double move = step(f, z + s * k, z + s * k, half[s], inverse[s], e, white[s], now[s]);
        most = move > most ? move : most;
        square[s] = log_det[s] = 0;
        for (int i = 0; i < o; i++) {
            epistemic[s * o + i] = spread[i * o + i];
            square[s] += white[s][i] * white[s][i];
            log_det[s] -= 2 * log(inverse[s][i * o + i]);
        }
    }
    for (int round = 0; round < f->rounds && most >= f->near; round++) {
        most = 0;
        for (int s = 0; s < n; s++) {
            double at[k];
            memcpy(at, now[s], sizeof(at));
            touch(f, s, at, c + s * r, slope + s * k * r);
            innovate(f, basis + s * o * r, whole, noise, z + s * k, covariance + s * k * k, at,
                     c + s * r, slope + s * k * r, seen, half[s], inverse[s], spread);
            double move = step(f, z + s * k, at, half[s], inverse[s], seen, white[s], now[s]);
            most = move > most ? move : most;
        }
    }
    for (int s = 0; s < n; s++) {
        double *p = covariance + s * k * k;
        memcpy(z + s * k, now[s], sizeof(double) * k);
        touch(f, s, now[s], c + s * r, slope + s * k * r);
        for (int a = 0; a < k; a++)
            for (int b = 0; b < k; b++)
                for (int i = 0; i < o; i++)
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
