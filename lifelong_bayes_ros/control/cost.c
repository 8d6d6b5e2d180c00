/* What predicted states and commands cost, in one pass over each. cost.py says what is computed. */
#include <stdint.h>
#include <string.h>

#define LANES 8

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

/* Arrays of `values` = horizon * state floats, of `commands` = horizon * action, and [action]. */
typedef struct {
    int64_t values, commands, action;
    const float *target, *track, *damping, *limit, *low, *high; /* [values] */
    const float *turn, *per_turn;                                /* [values]: 0 but for angles */
    const float *neutral, *per_half;                             /* [action] */
    float use, change; /* weights of a command and of its change, per step */
} terms;

static inline vec all(float x) { return x - (vec){0}; }

static inline vec load(const float *from, int64_t count)
{
    vec v = {0};
    memcpy(&v, from, (size_t)count * sizeof(float));
    return v;
}

static inline vec pick(ivec mask, vec a, vec b)
{
    return (vec)((mask & (ivec)a) | (~mask & (ivec)b));
}

static inline vec nearest(vec x) /* |x| < 2^22 */
{
    const vec magic = all(12582912.0f);
    return (x + magic) - magic;
}

static inline vec of_states(const terms *t, const float *states, int64_t k, int64_t count)
{
    vec x = load(states + k, count), error = x - load(t->target + k, count);
    error -= load(t->turn + k, count) * nearest(error * load(t->per_turn + k, count));
    vec low = load(t->low + k, count), high = load(t->high + k, count);
    vec kept = pick(x < low, low, x);
    kept = pick(kept > high, high, kept);
    vec beyond = x - kept;
    return load(t->track + k, count) * error * error + load(t->damping + k, count) * x * x
        + load(t->limit + k, count) * beyond * beyond;
}

static float of_commands(const terms *t, const float *commands, const float *previous)
{
    float use = 0.0f, change = 0.0f;
    for (int64_t j = 0; j < t->action; j++) {
        float before = (previous[j] - t->neutral[j]) * t->per_half[j];
        for (int64_t k = j; k < t->commands; k += t->action) {
            float u = (commands[k] - t->neutral[j]) * t->per_half[j];
            use += u * u;
            change += (u - before) * (u - before);
            before = u;
        }
    }
    return t->use * use + t->change * change;
}

/* Costs [members][plans] of states [members][plans][values] that commands [plans][commands],
 * after `previous` [action], lead to. */
void plan_costs(const terms *t, int64_t members, int64_t plans, const float *states,
                const float *commands, const float *previous, float *costs)
{
    for (int64_t n = 0; n < plans; n++) {
        float own = of_commands(t, commands + n * t->commands, previous);
        for (int64_t e = 0; e < members; e++) {
            const float *row = states + (e * plans + n) * t->values;
            vec sum = {0};
            int64_t k = 0;
            for (; k + LANES <= t->values; k += LANES)
                sum += of_states(t, row, k, LANES);
            if (k < t->values)
                sum += of_states(t, row, k, t->values - k);
            float total = own;
            for (int i = 0; i < LANES; i++)
                total += sum[i];
            costs[e * plans + n] = total;
        }
    }
}
