// Attacks the reader of manifest pages (FORMAT.md, section 6.2) with damaged pages.
//
//   fuzz_pages corrupt COUNT SEED      writes the pages of random trees, damages them, reads them
//   fuzz_pages roundtrip COUNT SEED    reads sound pages, and compares the tables
//
// Built with AddressSanitizer, every column being a heap block of exactly the size that the page asked for, so that one byte
// too far aborts. What the reader accepts must be a table that obeys the format. Prints one line at the end.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "entry_table.h"

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

constexpr uint32_t kChunkSizes[] = {1, 4096, 1 << 30};
constexpr uint64_t kChunks = 3;
constexpr uint64_t kMostNames = 64 << 20;  // as the program, a test takes no page that asks for more

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

uint64_t below(Random& random, uint64_t bound) {
    return bound == 0 ? 0 : random() % bound;
}

// The columns of a table on the heap, each of exactly the size that is needed.
struct Table {
    std::unique_ptr<DumontEntry[]> entries;
    std::unique_ptr<char[]> names;
    std::unique_ptr<DumontExtent[]> extents;
    std::unique_ptr<DumontPiece[]> pieces;
    std::unique_ptr<DumontOwner[]> owners;
    DumontTable c = {};

    // Makes room for so many more items, and keeps what is there.
    void grow(uint64_t more_entries, const DumontPageNeeds& needs, uint64_t more_pieces) {
        const bool first_owners = needs.owners != 0 && owners == nullptr;
        if (owners != nullptr || needs.owners != 0) enlarge(owners, first_owners ? 0 : c.entry_count, c.entry_count + more_entries);
        if (first_owners) std::fill_n(owners.get(), c.entry_count, DumontOwner{UINT32_MAX, UINT32_MAX});
        enlarge(entries, c.entry_count, c.entry_count + more_entries);
        enlarge(names, c.names_size, c.names_size + needs.names);
        enlarge(extents, c.extent_count, c.extent_count + needs.extents);
        enlarge(pieces, c.piece_count, c.piece_count + more_pieces);
        c.entries = entries.get();
        c.names = names.get();
        c.extents = extents.get();
        c.pieces = pieces.get();
        c.owners = owners.get();
    }

private:
    template <typename Item>
    static void enlarge(std::unique_ptr<Item[]>& items, uint64_t used, uint64_t size) {
        std::unique_ptr<Item[]> larger(new Item[size]);
        std::copy_n(items.get(), used, larger.get());
        items = std::move(larger);
    }
};

// --- sound tables

struct Builder {
    std::vector<DumontEntry> entries;
    std::string names;
    std::vector<DumontExtent> extents;
    std::vector<DumontPiece> pieces;
    std::vector<DumontOwner> owners;
    std::vector<std::string> files;  // paths
    Random& random;

    explicit Builder(Random& dice) : random(dice) {}

    uint32_t text(const std::string& value) {
        const auto at = static_cast<uint32_t>(names.size());
        names += value;
        names += '\0';
        return at;
    }

    void folder(const std::string& prefix, uint32_t depth) {
        const uint64_t count = below(random, depth == 0 ? 12 : 6);
        std::vector<std::string> used;
        for (uint64_t i = 0; i < count; ++i) {
            std::string name(1 + below(random, 8) * below(random, 2), static_cast<char>('a' + below(random, 4)));
            if (below(random, 20) == 0) name = std::string(255, '\xff');
            if (std::find(used.begin(), used.end(), name) != used.end()) continue;
            used.push_back(name);
            entry(prefix + name, depth);
        }
    }

    void entry(const std::string& path, uint32_t depth) {
        DumontEntry row = {};
        row.path = text(path);
        row.type = static_cast<uint8_t>(below(random, 4));
        if (row.type == DUMONT_HARDLINK && files.empty()) row.type = DUMONT_FILE;
        row.mode = static_cast<uint16_t>(below(random, 4096));
        row.mtime_ns = static_cast<int64_t>(random());
        DumontOwner owner = {UINT32_MAX, UINT32_MAX};
        if (row.type != DUMONT_HARDLINK && below(random, 3) == 0) owner = {static_cast<uint32_t>(below(random, UINT32_MAX)), 0};
        if (row.type == DUMONT_SYMLINK) row.first = text(path + "/x");
        if (row.type == DUMONT_HARDLINK) {
            row.first = text("");  // the caller gives it a leader when the order is known
            row.mode = 0;
            row.mtime_ns = 0;
        }
        if (row.type == DUMONT_FILE) {
            file(row);
            files.push_back(path);
        }
        entries.push_back(row);
        owners.push_back(owner);
        if (row.type == DUMONT_DIR && depth < 4) folder(path + "/", depth + 1);
    }

    void file(DumontEntry& row) {
        row.first = static_cast<uint32_t>(extents.size());
        row.extent_count = static_cast<uint32_t>(below(random, 4));
        row.flags = below(random, 10) == 0 ? DUMONT_ENTRY_CHANGED : 0;
        uint64_t end = 0;
        for (uint32_t i = 0; i < row.extent_count; ++i) {
            if (pieces.empty() || below(random, 2) == 0) pieces.push_back(piece());
            const uint64_t offset = end + below(random, 3) * below(random, 1u << 20);
            const uint64_t number = below(random, pieces.size());
            extents.push_back({offset, static_cast<uint32_t>(number), 0});
            end = offset + pieces[number].length;
        }
        row.size = end + below(random, 2) * below(random, 1000);
    }

    DumontPiece piece() {
        DumontPiece result = {};
        result.chunk = static_cast<uint32_t>(below(random, kChunks));
        const uint32_t room = kChunkSizes[result.chunk];
        result.chunk_offset = static_cast<uint32_t>(below(random, room));
        result.length = static_cast<uint32_t>(1 + below(random, std::min<uint64_t>(room - result.chunk_offset, 5000)));
        for (uint8_t& byte : result.digest) byte = static_cast<uint8_t>(random());
        return result;
    }

    DumontTable table(bool with_owners) {
        return {entries.data(), entries.size(), names.data(), names.size(), extents.data(), extents.size(),
                pieces.data(), pieces.size(), with_owners ? owners.data() : nullptr};
    }
};

// A page, and what its record in the head says of it.
struct Page {
    Bytes bytes;
    uint64_t entries;
    uint64_t pieces;
};

std::vector<Page> write_pages(const DumontTable& table, uint64_t limit) {
    std::vector<uint32_t> numbers(table.piece_count, UINT32_MAX);
    std::vector<Page> pages;
    uint32_t next = 0;
    for (uint64_t first = 0; first < table.entry_count;) {
        const uint64_t count = dumont_page_entries(&table, first, limit);
        const uint32_t before = next;
        Page page = {Bytes(dumont_write_page(&table, first, count, numbers.data(), before, &next, nullptr)), count, 0};
        dumont_write_page(&table, first, count, numbers.data(), before, &next, page.bytes.data());
        page.pieces = next - before;
        pages.push_back(page);
        first += count;
    }
    return pages;
}

std::vector<Page> random_pages(Random& random, Builder& builder) {
    builder.folder("", 0);
    DumontTable table = builder.table(below(random, 2) == 0);
    std::vector<uint32_t> order(table.entry_count);
    dumont_sort_entries(&table, order.data());
    uint32_t leader = UINT32_MAX;
    for (uint64_t i = 0; i < table.entry_count; ++i) {
        DumontEntry& row = table.entries[i];
        if (row.type == DUMONT_FILE && (leader == UINT32_MAX || below(random, 2) == 0)) leader = row.path;
        if (row.type != DUMONT_HARDLINK) continue;
        if (leader == UINT32_MAX) row.type = DUMONT_SYMLINK;
        row.first = leader == UINT32_MAX ? row.path : leader;
    }
    return write_pages(table, 1 + below(random, 20));
}

// --- reading

// Reads a page as the program does; returns 0 or an error.
int64_t read(const Page& page, Table& table) {
    std::unique_ptr<uint8_t[]> exact(new uint8_t[page.bytes.size()]);
    std::copy(page.bytes.begin(), page.bytes.end(), exact.get());
    const uint64_t size = page.bytes.size();
    DumontPageNeeds needs;
    if (const int64_t error = dumont_page_needs(exact.get(), size, page.entries, &needs)) return error;
    if (page.entries > size || needs.extents > size || page.pieces * sizeof(DumontPiece::digest) > size) return DUMONT_PAGE_MALFORMED;
    if (table.c.names_size + needs.names > kMostNames) return DUMONT_PAGE_MALFORMED;
    table.grow(page.entries, needs, page.pieces);
    uint64_t wrong = 0;
    const int64_t error = dumont_read_page(exact.get(), size, page.entries, page.pieces, kChunkSizes, kChunks, &table.c, &wrong);
    if (error != 0 && wrong > page.entries) fail("an error in an entry that is not there");
    return error;
}

// What a reader accepts obeys the format.
void check(const DumontTable& table) {
    const auto name = [&](uint32_t at) {
        if (at >= table.names_size || memchr(table.names + at, 0, table.names_size - at) == nullptr) fail("a name without an end");
        return table.names + at;
    };
    for (uint64_t i = 0; i < table.entry_count; ++i) {
        const DumontEntry& row = table.entries[i];
        const char* path = name(row.path);
        if (i > 0 && strcmp(name(table.entries[i - 1].path), path) >= 0) fail("paths do not ascend");
        if (path[0] == 0 || path[0] == '/' || strstr(path, "//") || strstr(path, "/../")) fail("not a plain path");
        if (row.type > DUMONT_HARDLINK || row.mode > 07777 || row.size > INT64_MAX) fail("a value out of bounds");
        if (row.type == DUMONT_SYMLINK && name(row.first)[0] == 0) fail("a symlink to nothing");
        if (row.type == DUMONT_HARDLINK) {
            const int64_t leader = dumont_find_entry(&table, name(row.first));
            if (leader < 0 || static_cast<uint64_t>(leader) >= i || table.entries[leader].type != DUMONT_FILE) fail("no leader");
        }
        if (row.type != DUMONT_FILE) continue;
        if (uint64_t{row.first} + row.extent_count > table.extent_count) fail("extents beyond the table");
        uint64_t end = 0;
        for (uint64_t e = row.first; e < uint64_t{row.first} + row.extent_count; ++e) {
            const DumontExtent& extent = table.extents[e];
            if (extent.piece >= table.piece_count || extent.file_offset < end) fail("an extent without a piece, or too early");
            const DumontPiece& piece = table.pieces[extent.piece];
            if (piece.length == 0 || piece.chunk >= kChunks) fail("a piece of nothing");
            if (uint64_t{piece.chunk_offset} + piece.length > kChunkSizes[piece.chunk]) fail("a piece leaves its chunk");
            end = extent.file_offset + piece.length;
            if (end > row.size) fail("an extent leaves its file");
        }
    }
}

bool same_entries(const DumontTable& a, const DumontTable& b) {
    if (a.entry_count != b.entry_count) return false;
    for (uint64_t i = 0; i < a.entry_count; ++i) {
        const DumontEntry& x = a.entries[i];
        const DumontEntry& y = b.entries[i];
        if (strcmp(a.names + x.path, b.names + y.path) != 0 || x.type != y.type || x.mode != y.mode || x.flags != y.flags) return false;
        if (x.mtime_ns != y.mtime_ns || x.size != y.size || x.extent_count != y.extent_count) return false;
        if (x.type == DUMONT_SYMLINK || x.type == DUMONT_HARDLINK) {
            if (strcmp(a.names + x.first, b.names + y.first) != 0) return false;
        }
        for (uint32_t e = 0; e < x.extent_count; ++e) {
            const DumontExtent& p = a.extents[x.first + e];
            const DumontExtent& q = b.extents[y.first + e];
            if (p.file_offset != q.file_offset) return false;
            if (memcmp(&a.pieces[p.piece], &b.pieces[q.piece], sizeof(DumontPiece)) != 0) return false;
        }
        const DumontOwner none = {UINT32_MAX, UINT32_MAX};
        const DumontOwner of_a = a.owners ? a.owners[i] : none;
        const DumontOwner of_b = b.owners ? b.owners[i] : none;
        if (of_a.uid != of_b.uid || of_a.gid != of_b.gid) return false;
    }
    return true;
}

// --- damage

void mutate(Page& page, const std::vector<Page>& others, Random& random) {
    Bytes& bytes = page.bytes;
    const uint64_t at = below(random, bytes.size());
    switch (below(random, 9)) {
        case 0: bytes[at] ^= static_cast<uint8_t>(1u << below(random, 8)); break;
        case 1: bytes[at] = static_cast<uint8_t>(random()); break;
        case 2: bytes[at] = below(random, 2) != 0 ? 0xFF : 0; break;
        case 3: bytes.resize(at); break;
        case 4: bytes.insert(bytes.begin() + static_cast<int64_t>(at), static_cast<uint8_t>(random())); break;
        case 5: {  // bytes of another page
            const Bytes& other = others[below(random, others.size())].bytes;
            const uint64_t from = below(random, other.size());
            const uint64_t length = std::min(below(random, 40), std::min(other.size() - from, bytes.size() - at));
            std::copy_n(other.begin() + static_cast<int64_t>(from), length, bytes.begin() + static_cast<int64_t>(at));
            break;
        }
        case 6: page.entries += below(random, 3) - 1; break;
        case 7: page.pieces += below(random, 3) - 1; break;
        default:  // a byte of the table of columns
            bytes[std::min<uint64_t>(below(random, 150), bytes.size() - 1)] = static_cast<uint8_t>(random());
    }
}

int corrupt(uint64_t count, uint64_t seed) {
    Random random(seed);
    uint64_t accepted = 0, refused = 0;
    std::vector<uint64_t> errors(14);
    while (accepted + refused < count) {
        Builder builder(random);
        const std::vector<Page> sound = random_pages(random, builder);
        if (sound.empty()) continue;
        for (uint64_t n = 0; n < 20; ++n) {
            std::vector<Page> pages = sound;
            const uint64_t bent = below(random, pages.size());
            for (uint64_t m = 1 + below(random, 3); m > 0 && !pages[bent].bytes.empty(); --m) mutate(pages[bent], sound, random);
            Table table;
            int64_t error = 0;
            for (uint64_t i = 0; i < pages.size() && error == 0; ++i) error = read(pages[i], table);
            check(table.c);  // after an error, too: what was read so far is sound
            if (error < -13 || error > 0) fail("an error that is none");
            ++errors[static_cast<size_t>(-error)];
            ++(error == 0 ? accepted : refused);
        }
    }
    uint64_t kinds = 0;
    for (const uint64_t seen : errors) kinds += seen != 0;
    std::printf("corrupt: %llu pages: %llu read, %llu refused, for %llu reasons\n", static_cast<unsigned long long>(accepted + refused),
                static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(refused),
                static_cast<unsigned long long>(kinds - (errors[0] != 0)));
    return 0;
}

int roundtrip(uint64_t count, uint64_t seed) {
    Random random(seed);
    uint64_t entries = 0, size = 0;
    for (uint64_t i = 0; i < count; ++i) {
        Builder builder(random);
        const std::vector<Page> pages = random_pages(random, builder);
        Table table;
        for (const Page& page : pages) {
            if (read(page, table) != 0) fail("a sound page is refused");
            size += page.bytes.size();
        }
        check(table.c);
        const std::vector<Page> again = write_pages(table.c, 1 + below(random, 20));
        Table second;
        for (const Page& page : again) {
            if (read(page, second) != 0) fail("a page of what was read is refused");
        }
        if (!same_entries(table.c, second.c)) fail("entries changed");
        if (table.c.entry_count != builder.entries.size()) fail("entries are missing");
        if (!same_entries(builder.table(table.c.owners != nullptr), table.c)) fail("entries are not what was written");
        entries += table.c.entry_count;
    }
    std::printf("roundtrip: %llu tables, %llu entries in %llu bytes\n", static_cast<unsigned long long>(count),
                static_cast<unsigned long long>(entries), static_cast<unsigned long long>(size));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 4 && std::strcmp(argv[1], "corrupt") == 0) {
        return corrupt(std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10));
    }
    if (argc == 4 && std::strcmp(argv[1], "roundtrip") == 0) {
        return roundtrip(std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10));
    }
    std::fprintf(stderr, "usage: fuzz_pages corrupt COUNT SEED | fuzz_pages roundtrip COUNT SEED\n");
    return 2;
}
