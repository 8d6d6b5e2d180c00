/* Rolls many plans out through one draw of a Belief, in tiles of rows that stay in the first cache.
 *
 * Rows lie along the lanes of a vector, so every step (encoding, both layers and their tangents,
 * tanh, heads) works on TILE rows at once without any shuffling. What is computed is said in
 * dynamics/model.py and dynamics/trunk.py; rollout.py does the same with numpy.
 */
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
#define WIDE 2 /* vectors in a tile */
#define TILE (LANES * WIDE)
#define OUT 3   /* units of the second layer at once: OUT * 2 * WIDE sums fill the registers */
#define PAIR 2  /* outputs of the heads at once */
#define BOTH (2 * WIDE) /* values, then tangents */

/* Has the compiler load a vector once and keep it, where it would load it for every use. */
#if defined(__AVX512F__)
#define KEEP(v) __asm__("" : "+v"(v))
#elif defined(__AVX__)
#define KEEP(v) __asm__("" : "+x"(v))
#else
#define KEEP(v)
#endif

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

/* All weights are float32 and C-contiguous. `hidden` is a multiple of OUT, `outputs` of PAIR:
 * whoever calls fills up with zeros. */
typedef struct {
    int32_t state, action, values, angles, hidden, outputs, delays, horizon;
    const int32_t *value_at, *angle_at; /* channels that enter as they are, and as angles */
    const float *centre, *unit;         /* [inputs]: input = (encoded - centre) * unit */
    const float *w1, *b1;               /* [inputs][hidden], [hidden] */
    const float *w2, *b2;               /* [hidden / OUT][hidden][OUT], [hidden] */
    const float *nominal;               /* [hidden + action][outputs], for tangents */
} model;

typedef struct {
    const float *head; /* [hidden + inputs + 1][outputs] */
    const float *gain, *bias, *delay; /* [action], [action], [delays] */
} draw;

static inline vec all(float x) { return x - (vec){0}; }

static inline vec pick(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

static inline vec nearest(vec x) /* |x| < 2^22 */
{
    const vec magic = all(12582912.0f);
    return (x + magic) - magic;
}

/* tanh x = 1 - 2 / (e^2x + 1), absolute error below 2e-7 */
static inline vec tanh_of(vec x)
{
    vec y = x * 2.885390081777927f; /* 2 / ln 2 */
    y = pick(y > 40.0f, all(40.0f), y);
    y = pick(y < -40.0f, all(-40.0f), y);
    vec whole = nearest(y), f = y - whole;
    vec p = all(1.5353362e-4f);
    p = p * f + 1.3398874e-3f;
    p = p * f + 9.6184373e-3f;
    p = p * f + 5.5503324e-2f;
    p = p * f + 2.4022648e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    ivec power = (__builtin_convertvector(whole, ivec) + 127) << 23;
    return 1.0f - 2.0f / (p * (vec)power + 1.0f);
}

/* Cephes: reduction to a quarter turn in three parts, then short polynomials; |x| < 8192 */
static inline void circle(vec x, vec *cosine, vec *sine)
{
    vec turns = nearest(x * 0.6366197723675814f);
    vec r = x - turns * 1.5703125f;
    r = r - turns * 4.837512969970703125e-4f;
    r = r - turns * 7.54978995489188216e-8f;
    vec z = r * r;
    vec s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * r + r;
    vec c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z;
    c = c * z - 0.5f * z + 1.0f;
    ivec quarter = __builtin_convertvector(turns, ivec);
    ivec swap = (quarter & 1) != 0;
    vec sn = pick(swap, c, s), cs = pick(swap, s, c);
    *sine = pick((quarter & 2) != 0, -sn, sn);
    *cosine = pick(((quarter + 1) & 2) != 0, -cs, cs);
}

static void encode(const model *m, const vec *x, const vec *u, vec *in)
{
    int n = m->values, a = m->angles;
    for (int i = 0; i < n; i++)
        for (int v = 0; v < WIDE; v++)
            in[i * WIDE + v] = x[m->value_at[i] * WIDE + v];
    for (int i = 0; i < a; i++)
        for (int v = 0; v < WIDE; v++)
            circle(x[m->angle_at[i] * WIDE + v], &in[(n + i) * WIDE + v],
                   &in[(n + a + i) * WIDE + v]);
    n += 2 * a;
    memcpy(in + n * WIDE, u, (size_t)m->action * WIDE * sizeof(vec));
    n += m->action;
    for (int i = 0; i < n; i++)
        for (int v = 0; v < WIDE; v++)
            in[i * WIDE + v] = (in[i * WIDE + v] - m->centre[i]) * m->unit[i];
}

/* relu of the first layer, and its tangent along the change `along` of the commands */
static void first(const model *m, int inputs, const vec *in, const vec *along, vec *hidden)
{
    const float *commands = m->w1 + (size_t)(inputs - m->action) * m->hidden;
    for (int o = 0; o < m->hidden; o++) {
        vec value[WIDE], tangent[WIDE];
        for (int v = 0; v < WIDE; v++) {
            value[v] = all(m->b1[o]);
            tangent[v] = all(0.0f);
        }
        for (int i = 0; i < inputs; i++)
            for (int v = 0; v < WIDE; v++)
                value[v] += m->w1[(size_t)i * m->hidden + o] * in[i * WIDE + v];
        for (int j = 0; j < m->action; j++)
            for (int v = 0; v < WIDE; v++)
                tangent[v] += commands[(size_t)j * m->hidden + o] * along[j * WIDE + v];
        for (int v = 0; v < WIDE; v++) {
            ivec on = value[v] > 0.0f;
            hidden[o * BOTH + v] = pick(on, value[v], all(0.0f));
            hidden[o * BOTH + WIDE + v] = pick(on, tangent[v], all(0.0f));
        }
    }
}

static void second(const model *m, const vec *restrict hidden, vec *restrict top)
{
    int n = m->hidden;
    for (int o = 0; o < n; o += OUT) {
        const float *w = m->w2 + (size_t)o * n;
        vec sum[OUT][BOTH];
        for (int k = 0; k < OUT; k++)
            for (int v = 0; v < BOTH; v++)
                sum[k][v] = all(v < WIDE ? m->b2[o + k] : 0.0f);
        for (int i = 0; i < n; i++) {
            vec row[OUT];
            for (int k = 0; k < OUT; k++)
                row[k] = all(w[i * OUT + k]);
#pragma GCC unroll 4
            for (int v = 0; v < BOTH; v++) {
                vec value = hidden[i * BOTH + v];
                KEEP(value);
#pragma GCC unroll 3
                for (int k = 0; k < OUT; k++)
                    sum[k][v] += row[k] * value;
            }
        }
        for (int k = 0; k < OUT; k++)
            for (int v = 0; v < WIDE; v++) {
                vec t = tanh_of(sum[k][v]);
                top[(o + k) * BOTH + v] = t;
                top[(o + k) * BOTH + WIDE + v] = sum[k][WIDE + v] * (1.0f - t * t);
            }
    }
}

/* Adds the change of state: the draw's head on the features, the nominal one on their tangents */
static void heads(const model *m, const draw *d, int inputs, const vec *top, const vec *in,
                  const vec *along, vec *x)
{
    int n = m->hidden, k = m->outputs;
    for (int o = 0; o < k; o += PAIR) {
        vec sum[PAIR][BOTH];
        const float *last = d->head + (size_t)(n + inputs) * k + o;
        for (int p = 0; p < PAIR; p++)
            for (int v = 0; v < BOTH; v++)
                sum[p][v] = all(v < WIDE ? last[p] : 0.0f);
        for (int f = 0; f < n; f++)
            for (int p = 0; p < PAIR; p++)
                for (int v = 0; v < WIDE; v++) {
                    sum[p][v] += d->head[(size_t)f * k + o + p] * top[f * BOTH + v];
                    sum[p][WIDE + v] +=
                        m->nominal[(size_t)f * k + o + p] * top[f * BOTH + WIDE + v];
                }
        for (int i = 0; i < inputs; i++)
            for (int p = 0; p < PAIR; p++)
                for (int v = 0; v < WIDE; v++)
                    sum[p][v] += d->head[(size_t)(n + i) * k + o + p] * in[i * WIDE + v];
        for (int j = 0; j < m->action; j++)
            for (int p = 0; p < PAIR; p++)
                for (int v = 0; v < WIDE; v++)
                    sum[p][WIDE + v] +=
                        m->nominal[(size_t)(n + j) * k + o + p] * along[j * WIDE + v];
        for (int p = 0; p < PAIR; p++)
            for (int v = 0; v < WIDE; v++)
                x[(o + p) * WIDE + v] += sum[p][v] + sum[p][WIDE + v];
    }
}

static inline float *lane(vec *of, int i, int row) { return (float *)of + i * TILE + row; }

/* Vectors of scratch that `rollout` needs. */
int64_t rollout_scratch(const model *m)
{
    int inputs = m->values + 2 * m->angles + m->action;
    int64_t vectors = 2LL * m->hidden * BOTH
        + (m->outputs + inputs + (2 + m->delays) * m->action) * WIDE;
    return (vectors + 1) * (int64_t)sizeof(vec);
}

/* States [..][horizon][state] of the plans `rows` [count] among actions [..][horizon][action]. */
static void roll(const model *m, const draw *d, const float *start, const float *past,
             const float *actions, const int32_t *rows, int64_t count, float *states, char *scratch)
{
    int inputs = m->values + 2 * m->angles + m->action, da = m->action, ds = m->state;
    scratch += (-(intptr_t)scratch) & (sizeof(vec) - 1);
    vec *hidden = (vec *)scratch, *top = hidden + m->hidden * BOTH;
    vec *x = top + m->hidden * BOTH, *in = x + m->outputs * WIDE;
    vec *u = in + inputs * WIDE, *along = u + da * WIDE, *before = along + da * WIDE;
    const float *unit = m->unit + inputs - da;
    for (int64_t at = 0; at < count; at += TILE) {
        int filled = count - at < TILE ? (int)(count - at) : TILE;
        for (int i = 0; i < m->outputs; i++)
            for (int v = 0; v < WIDE; v++)
                x[i * WIDE + v] = all(i < ds ? start[i] : 0.0f);
        for (int i = 0; i < m->delays * da; i++)
            for (int v = 0; v < WIDE; v++)
                before[i * WIDE + v] = all(past[i]);
        for (int h = 0; h < m->horizon; h++) {
            for (int r = 0; r < TILE; r++) {
                int64_t row = rows[at + (r < filled ? r : 0)];
                for (int j = 0; j < da; j++)
                    *lane(u, j, r) = actions[(row * m->horizon + h) * da + j];
            }
            for (int j = 0; j < da; j++)
                for (int v = 0; v < WIDE; v++) {
                    vec now = u[j * WIDE + v], change = now * d->gain[j] + d->bias[j];
                    for (int k = 0; k < m->delays; k++)
                        change += d->delay[k] * (before[(k * da + j) * WIDE + v] - now);
                    along[j * WIDE + v] = change * unit[j];
                }
            encode(m, x, u, in);
            first(m, inputs, in, along, hidden);
            second(m, hidden, top);
            heads(m, d, inputs, top, in, along, x);
            for (int k = m->delays - 1; k > 0; k--)
                memcpy(before + k * da * WIDE, before + (k - 1) * da * WIDE,
                       (size_t)da * WIDE * sizeof(vec));
            memcpy(before, u, (size_t)da * WIDE * sizeof(vec));
            for (int r = 0; r < filled; r++)
                for (int i = 0; i < ds; i++)
                    states[((int64_t)rows[at + r] * m->horizon + h) * ds + i] = *lane(x, i, r);
        }
    }
}

/* Draw e rolls the plans rows[ends[e - 1]] to rows[ends[e] - 1] out, into states + e * apart. */
void rollout(const model *m, const draw *draws, int64_t count, const float *start,
             const float *past, const float *actions, const int32_t *rows, const int64_t *ends,
             float *states, int64_t apart, char *scratch)
{
    for (int64_t e = 0, from = 0; e < count; from = ends[e++])
        roll(m, draws + e, start, past, actions, rows + from, ends[e] - from, states + e * apart,
             scratch);
}
