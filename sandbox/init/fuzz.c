/*
 * Fuzzing of the plan's parser. LLVMFuzzerTestOneInput is what libFuzzer and AFL++ call. Where there is neither, the
 * driver below does: `fuzz ROUNDS FILE...` mutates the plans in FILEs, always in the same way. With -DNO_DRIVER it
 * is left out.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile size_t sink;

/* Whatever was accepted must be readable to its end. */
static void use(const struct step *step)
{
    for (unsigned i = 0; i < step->count; i++) {
        char type = step->op->signature[strchr(step->op->signature, '*') != NULL ? 0 : i];

        if (type == 's')
            sink += strlen(step->args[i].text);
        for (size_t j = 0; type == 'b' && j < step->args[i].bytes->length; j++)
            sink += step->args[i].bytes->data[j];
        for (char **text = step->args[i].list; type == 'l' && *text != NULL; text++)
            sink += strlen(*text);
    }
}

/* Copies, so that the sanitizer sees every byte read or written beyond the ends. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(size + (size == 0));
    void *room = malloc(PLAN_ROOM(size) + (size == 0));
    struct plan plan = {0};

    if (bytes == NULL || room == NULL)
        abort();
    memcpy(bytes, data, size);
    if (plan_parse(bytes, size, room, &plan) == 0)
        for (uint32_t i = 0; i < plan.count; i++)
            use(&plan.steps[i]);
    free(room);
    free(bytes);
    return 0;
}

#ifndef NO_DRIVER

enum { LONGEST = 1 << 16 };

/* xorshift, always from the same seed: a failure comes again. */
static uint64_t draw(uint64_t below)
{
    static uint64_t state = 0x9e3779b97f4a7c15;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static uint32_t odd_number(void)
{
    static const uint32_t numbers[] = {0, 1, 2, 0x7f, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};

    return numbers[draw(sizeof numbers / sizeof numbers[0])];
}

/* One change: a bit, a byte, a 32-bit number, a cut, a piece moved, or the length put right again. */
static size_t mutate(uint8_t *plan, size_t size)
{
    size_t at = draw(size), rest = size - at;
    uint32_t number = draw(3) != 0 ? odd_number() : (uint32_t)size;

    switch (draw(6)) {
    case 0:
        plan[at] ^= (uint8_t)(1U << draw(8));
        break;
    case 1:
        plan[at] = (uint8_t)draw(256);
        break;
    case 2:
        memcpy(plan + at, &number, rest < 4 ? rest : 4);
        break;
    case 3:
        return at + 1;
    case 4:
        memmove(plan + draw(size - rest + 1), plan + at, draw(rest + 1));
        break;
    default:
        number = (uint32_t)size;
        memcpy(plan + (size < 8 ? 0 : 4), &number, size < 4 ? size : 4);
    }
    return size;
}

static void fuzz(const uint8_t *seed, size_t size, unsigned long rounds)
{
    static uint8_t plan[LONGEST];

    for (unsigned long round = 0; round < rounds; round++) {
        size_t length = size;

        memcpy(plan, seed, size);
        for (uint64_t changes = 1 + draw(4); changes > 0; changes--)
            length = mutate(plan, length);
        LLVMFuzzerTestOneInput(plan, length);
        for (size_t i = 0; i < length; i++)
            plan[i] = (uint8_t)draw(256);
        LLVMFuzzerTestOneInput(plan, draw(length + 1));
    }
}

int main(int argc, char **argv)
{
    static uint8_t seed[LONGEST];

    for (int i = 2; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        size_t size = file == NULL ? 0 : fread(seed, 1, sizeof seed, file);

        if (size == 0)
            return 1;
        fclose(file);
        LLVMFuzzerTestOneInput(seed, size);
        fuzz(seed, size, strtoul(argv[1], NULL, 10));
    }
    return argc > 2 ? 0 : 1;
}

#endif
