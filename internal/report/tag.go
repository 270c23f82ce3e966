package report

import (
	"bytes"
	"fmt"

	"codeberg.org/go-pdf/fpdf"
	"github.com/pdfcpu/pdfcpu/pkg/api"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/model"
	"github.com/pdfcpu/pdfcpu/pkg/pdfcpu/types"
)

// No library here writes tagged PDF, so the tags are ours: every piece of content is drawn between marks, and the tree that gives the
// pieces their order and meaning (ISO 32000-1, 14.7 and 14.8) is added to the finished file.

// element is one node of the structure tree. Its kids are elements and marked pieces of content, in reading order.
type element struct {
	kind  string // H1, P, Table, TH …: a standard structure type
	alt   string // what is said instead of a picture
	scope string // of a TH: Column or Row
	kids  []any  // *element or mark
}

// mark is one marked piece of content: its page, from 1, and its number there.
type mark struct{ page, id int }

func (e *element) add(kind string) *element {
	k := &element{kind: kind}
	e.kids = append(e.kids, k)
	return k
}

// tagger marks what is drawn.
type tagger struct {
	pdf    *fpdf.Fpdf
	root   element
	owners map[int][]*element // by page: whose each marked piece is
}

// mark draws a piece of content of an element.
func (t *tagger) mark(e *element, draw func()) {
	page := t.pdf.PageNo()
	m := mark{page, len(t.owners[page])}
	t.owners[page] = append(t.owners[page], e)
	e.kids = append(e.kids, m)
	t.pdf.RawWriteStr(fmt.Sprintf("/%s <</MCID %d>> BDC\n", e.kind, m.id))
	draw()
	t.pdf.RawWriteStr("EMC\n")
}

// artifact draws what is no content: rules, backgrounds, headers and footers.
func (t *tagger) artifact(draw func()) {
	t.pdf.RawWriteStr("/Artifact BMC\n")
	draw()
	t.pdf.RawWriteStr("EMC\n")
}

// finish writes the PDF with its tree.
func (t *tagger) finish() ([]byte, error) {
	var plain bytes.Buffer
	if err := t.pdf.Output(&plain); err != nil {
		return nil, fmt.Errorf("drawing the PDF: %w", err)
	}
	api.DisableConfigDir() // it would write a folder into the home of whoever runs us
	conf := model.NewDefaultConfiguration()
	// Streams stay as they are: the file is small, and any reader can open it.
	conf.WriteObjectStream, conf.WriteXRefStream, conf.ValidationMode = false, false, model.ValidationRelaxed
	ctx, err := api.ReadContext(bytes.NewReader(plain.Bytes()), conf)
	if err != nil {
		return nil, fmt.Errorf("tagging the PDF: %w", err)
	}
	if err := ctx.EnsurePageCount(); err != nil {
		return nil, fmt.Errorf("tagging the PDF: %w", err)
	}
	if err := t.tree(ctx.XRefTable); err != nil {
		return nil, fmt.Errorf("tagging the PDF: %w", err)
	}
	var out bytes.Buffer
	if err := api.WriteContext(ctx, &out); err != nil {
		return nil, fmt.Errorf("writing the tagged PDF: %w", err)
	}
	return out.Bytes(), nil
}

// tree adds the structure tree, the way back from marks to it, and what says that the file has one.
func (t *tagger) tree(x *model.XRefTable) error {
	pages := map[int]types.IndirectRef{}
	for n := 1; n <= x.PageCount; n++ {
		page, ref, _, err := x.PageDict(n, false)
		if err != nil {
			return err
		}
		page.InsertInt("StructParents", n-1)
		page.InsertName("Tabs", "S")
		pages[n] = *ref
	}
	rootDict := types.Dict{"Type": types.Name("StructTreeRoot")}
	root, err := x.IndRefForNewObject(rootDict)
	if err != nil {
		return err
	}
	refs := map[*element]types.IndirectRef{}
	var build func(e *element, parent types.IndirectRef) (types.IndirectRef, error)
	build = func(e *element, parent types.IndirectRef) (types.IndirectRef, error) {
		d := types.Dict{"Type": types.Name("StructElem"), "S": types.Name(e.kind), "P": parent}
		if e.alt != "" {
			d["Alt"] = text(e.alt)
		}
		if e.scope != "" {
			d["A"] = types.Dict{"O": types.Name("Table"), "Scope": types.Name(e.scope)}
		}
		ref, err := x.IndRefForNewObject(d)
		if err != nil {
			return types.IndirectRef{}, err
		}
		refs[e] = *ref
		kids := types.Array{}
		for _, k := range e.kids {
			switch k := k.(type) {
			case mark:
				kids = append(kids, types.Dict{"Type": types.Name("MCR"), "Pg": pages[k.page], "MCID": types.Integer(k.id)})
			case *element:
				kid, err := build(k, *ref)
				if err != nil {
					return types.IndirectRef{}, err
				}
				kids = append(kids, kid)
			}
		}
		d["K"] = kids
		return *ref, nil
	}
	document, err := build(&t.root, *root)
	if err != nil {
		return err
	}
	nums := types.Array{}
	for n := 1; n <= x.PageCount; n++ {
		owners := types.Array{}
		for _, e := range t.owners[n] {
			owners = append(owners, refs[e])
		}
		nums = append(nums, types.Integer(n-1), owners)
	}
	parents, err := x.IndRefForNewObject(types.Dict{"Nums": nums})
	if err != nil {
		return err
	}
	rootDict["K"], rootDict["ParentTree"], rootDict["ParentTreeNextKey"] = document, *parents, types.Integer(x.PageCount)
	catalog, err := x.Catalog()
	if err != nil {
		return err
	}
	catalog["StructTreeRoot"] = *root
	catalog["MarkInfo"] = types.Dict{"Marked": types.Boolean(true)}
	catalog["Lang"] = types.StringLiteral("en-GB")
	catalog["ViewerPreferences"] = types.Dict{"DisplayDocTitle": types.Boolean(true)}
	return nil
}

// text is a string of PDF that holds any letter.
func text(s string) types.HexLiteral { return types.NewHexLiteral([]byte(types.EncodeUTF16String(s))) }
