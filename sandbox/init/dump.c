/*
 * For the tests: shows what the parser made of a plan. Reads plans from stdin, each behind its length (u32), and
 * writes for each `error ERRNO`, or its steps and `end`. Texts are written in hexadecimal.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

static void print_text(const char *text)
{
    putchar(' ');
    putchar('x');
    for (; *text != '\0'; text++)
        printf("%02x", (unsigned char)*text);
}

static void print_bytes(const struct bytes *bytes)
{
    printf(" x");
    for (size_t i = 0; i < bytes->length; i++)
        printf("%02x", bytes->data[i]);
}

static void print_arg(char type, union arg arg)
{
    if (type == 'i')
        printf("i %lld", (long long)arg.number);
    else
        putchar(type);
    if (type == 's')
        print_text(arg.text);
    if (type == 'b')
        print_bytes(arg.bytes);
    for (char **text = arg.list; type == 'l' && *text != NULL; text++)
        print_text(*text);
    putchar('\n');
}

static void print_step(const struct step *step)
{
    const char *signature = step->op->signature;
    unsigned any = strchr(signature, '*') != NULL;

    printf("%c %d %s\n", step->op->where, step->number, step->op->name);
    for (unsigned i = 0; i < step->count; i++)
        print_arg(signature[any ? 0 : i], step->args[i]);
}

static void dump(const uint8_t *bytes, size_t length)
{
    void *room = malloc(PLAN_ROOM(length) + (length == 0));
    struct plan plan;

    if (room == NULL)
        abort();
    int error = plan_parse(bytes, length, room, &plan);

    for (uint32_t i = 0; error == 0 && i < plan.count; i++)
        print_step(&plan.steps[i]);
    if (error == 0)
        puts("end");
    else
        printf("error %d\n", error);
    fflush(stdout);
    free(room);
}

int main(void)
{
    uint32_t length;

    while (fread(&length, sizeof length, 1, stdin) == 1) {
        uint8_t *bytes = malloc(length + (length == 0));

        if (bytes == NULL || fread(bytes, 1, length, stdin) != length)
            return 1;
        dump(bytes, length);
        free(bytes);
    }
    return 0;
}
